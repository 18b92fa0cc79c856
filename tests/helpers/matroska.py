"""Matroska files with exact timestamps, written by hand after RFC 9559: an oracle for times that no library gave."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def _element(name: str, payload: bytes) -> bytes:
    """An EBML element: its ID (hex), its length in eight bytes, its payload."""
    return bytes.fromhex(name) + struct.pack(">Q", len(payload) | 1 << 56) + payload


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))


def write_matroska(path: Path, frames: Sequence[np.ndarray], times_ms: Sequence[int]) -> Path:
    """Write RGB frames (H, W, 3) as Motion JPEG, each with its own timestamp in milliseconds; a cluster a frame."""
    height, width = frames[0].shape[:2]
    header = _element(
        "1A45DFA3",
        _number("4286", 1)
        + _number("42F7", 1)
        + _number("42F2", 4)
        + _number("42F3", 8)
        + _element("4282", b"matroska")
        + _number("4287", 4)
        + _number("4285", 2),
    )
    info = _element("1549A966", _number("2AD7B1", 1_000_000) + _element("4D80", b"test") + _element("5741", b"test"))
    size = _element("E0", _number("B0", width) + _number("BA", height))
    track = _number("D7", 1) + _number("73C5", 1) + _number("83", 1) + _element("86", b"V_MJPEG") + size
    clusters = b""
    for frame, moment in zip(frames, times_ms, strict=True):
        data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        block = _element("A3", b"\x81" + struct.pack(">hB", 0, 0x80) + data)
        clusters += _element("1F43B675", _number("E7", moment) + block)
    path.write_bytes(header + _element("18538067", info + _element("1654AE6B", _element("AE", track)) + clusters))
    return path
