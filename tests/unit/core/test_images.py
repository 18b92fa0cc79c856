"""Every fault has a name, and nothing is replaced in silence."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.core.errors import RejectedImage
from mien.core.images import REASONS, decode, decode_lean, image_id, is_grey

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
    "unknown_format": b"not an image at all",
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


def chunked(png: bytes) -> list[tuple[bytes, bytes]]:
    parts, at = [], 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4])
        parts.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    import zlib

    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in parts
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 70), st.integers(16, 70), st.integers(0, 9), st.booleans(), st.integers(0, 2**32))
def test_the_fast_way_for_plain_pngs_gives_what_pillow_gives(width, height, level, smooth, seed):
    import cv2

    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2) if smooth else image
    png = encoded(Image.fromarray(image), compress_level=level)
    assert (decode(png) == image[..., None]).all()
    assert (np.asarray(Image.open(io.BytesIO(png))) == image).all()
    assert decode_lean(png).shape == (height, width, 1)
    as_rgb = encoded(Image.fromarray(image).convert("RGB"))
    assert decode_lean(as_rgb).shape == (height, width, 3)
    assert image_id(decode_lean(png)) == image_id(decode_lean(as_rgb)) == image_id(decode(png))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "LA"])
def test_pixel_data_that_end_early_under_right_checksums_are_rejected(mode, keep):
    """Pillow gives back an image whose rest is black for some of these."""
    import zlib

    parts = chunked(encoded(Image.fromarray(RGB).convert(mode)))
    raw = zlib.decompress(b"".join(data for name, data in parts if name == b"IDAT"))
    short = [(name, data) for name, data in parts if name not in {b"IDAT", b"IEND"}]
    short += [(b"IDAT", zlib.compress(raw[: int(keep * len(raw))])), (b"IEND", b"")]
    assert rejected(joined(short)) == "truncated"


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "RGBA"])
@pytest.mark.parametrize("side", [16, 17, 33])
def test_whole_pngs_of_every_kind_pass(mode, side):
    """Also cut into several chunks."""
    image = Image.fromarray(RNG.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)).convert(mode)
    png = encoded(image)
    expected = np.asarray(image.convert("RGB"))
    assert (decode(png) == expected).all()
    parts = chunked(png)
    data = b"".join(d for name, d in parts if name == b"IDAT")
    cut = [(b"IDAT", data[i : i + 50]) for i in range(0, len(data), 50)]
    rest = [(name, d) for name, d in parts if name not in {b"IDAT", b"IEND"}]
    assert (decode(joined([*rest, *cut, (b"IEND", b"")])) == expected).all()


def interlaced(image: np.ndarray) -> bytes:
    """An Adam7 PNG of a grey image, unfiltered, by the standard's own table."""
    import zlib

    height, width = image.shape
    rows = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in image[y::dy, x::dx] if len(row))
    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 1])
    return joined([(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


@pytest.mark.parametrize("shape", [(16, 16), (17, 19), (40, 21)])
def test_interlaced_pngs_pass(shape):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert (decode(interlaced(image)) == image[..., None]).all()


def test_a_plain_png_of_forbidden_size_is_not_decoded():
    parts = chunked(encoded(Image.fromarray(RGB[..., 0])))
    huge = [(b"IHDR", (60_000).to_bytes(4) + (60_000).to_bytes(4) + parts[0][1][8:]), *parts[1:]]
    assert rejected(joined(huge)) == "too_large"
    assert rejected(encoded(Image.fromarray(RGB[:9, :, 0]))) == "too_small"


@pytest.mark.parametrize(
    "parts", [[(b"IEND", b"")], [(b"IHDR", b"12"), (b"IEND", b"")], [(b"IDAT", b"x"), (b"IEND", b"")], []]
)
def test_a_png_without_a_header_is_rejected(parts):
    assert rejected(joined(parts)) == "truncated"
