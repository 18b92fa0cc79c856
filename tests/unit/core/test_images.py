"""Every fault has a name, and nothing is replaced in silence."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.core.errors import RejectedImage
from mien.core.images import REASONS, decode, image_id, is_grey

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def rejected(data: bytes, **options) -> str:
    with pytest.raises(RejectedImage) as caught:
        decode(data, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


def test_png_pixels_come_back_exactly():
    assert (decode(encoded(Image.fromarray(RGB))) == RGB).all()
    grey = decode(encoded(Image.fromarray(RGB[..., 0])))
    assert grey.shape == (40, 30, 3)
    assert is_grey(grey)
    assert not is_grey(RGB)


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(encoded(Image.fromarray(RGB), exif=exif.tobytes()))
    assert (turned == np.rot90(RGB, -1)).all()


def test_an_opaque_alpha_channel_is_fine_a_transparent_one_is_not():
    alpha = np.dstack([RGB, np.full((40, 30), 255, np.uint8)])
    assert (decode(encoded(Image.fromarray(alpha))) == RGB).all()
    alpha[0, 0, 3] = 0
    assert rejected(encoded(Image.fromarray(alpha))) == "transparent"


FAULTS = {
    "empty": b"",
    "unknown_format": b"not a picture at all",
    "animated": encoded(Image.fromarray(RGB), "GIF", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
    "sixteen_bit": encoded(Image.fromarray(RNG.integers(0, 65535, (40, 30), dtype=np.uint16))),
    "cmyk": encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "truncated": encoded(Image.fromarray(RGB))[:600],
    "too_small": encoded(Image.fromarray(RGB[:8])),
    "too_large": encoded(Image.new("1", (9000, 9000))),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_faults_are_named(reason):
    assert rejected(FAULTS[reason]) == reason


def test_sixteen_bit_rgb_which_pillow_quietly_reduces_is_rejected():
    import cv2

    ok, data = cv2.imencode(".png", RNG.integers(0, 65535, (40, 30, 3), dtype=np.uint16))
    assert ok
    assert rejected(data.tobytes()) == "sixteen_bit"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_files_decode_whole_or_are_rejected_by_name(data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"]))
    raw = bytearray(encoded(Image.fromarray(RGB), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(raw)))
    found, reason = outcome(bytes(raw[:cut]))
    assert reason in REASONS if found is None else found.dtype == np.uint8 and found.ndim == 3


def outcome(data: bytes):
    try:
        return decode(data), None
    except RejectedImage as error:
        return None, error.reason


def test_the_id_depends_on_pixels_and_shape_alone():
    assert image_id(RGB) == image_id(decode(encoded(Image.fromarray(RGB), "BMP")))
    assert image_id(RGB) != image_id(np.ascontiguousarray(RGB.reshape(30, 40, 3)))
