"""Typed blocks (text, table, figure) to documents."""
