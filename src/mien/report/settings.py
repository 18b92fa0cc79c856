"""Settings as a reader sees them."""

from __future__ import annotations

from mien.report.blocks import Span
from mien.report.node import Node


def setting(node: Node) -> Span:
    """A setting's value: what is off is off."""
    value: object = node.value
    if value is None or value == "none":
        return "off" if value == "none" else "automatic"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return node.number(0)
    return node.number(6, style="significant") if isinstance(value, float) else node.quote()
