"""Facial-expression recognition that can be trusted, from pictures to a live student."""

__version__ = "0.1.0"
