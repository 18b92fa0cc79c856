"""Bytes to RGB uint8, or a named reason why not. No image is ever silently replaced or altered.

The header is read first, so that a small file cannot ask for gigabytes; EXIF rotation is applied.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mien.core.errors import RejectedImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

REASONS: dict[str, str] = {
    "missing": "the file does not exist or cannot be opened",
    "empty": "the file has no bytes",
    "unknown_format": "the bytes are no image that Pillow can identify",
    "too_large": "more pixels than the limit (header read, nothing decoded)",
    "too_small": "a side under 16 pixels shows no expression",
    "animated": "several frames: which one the label means is unknown",
    "sixteen_bit": "more than 8 bits a channel: the mapping to 8 bits is a choice that its owner must make",
    "cmyk": "CMYK without a defined conversion to RGB",
    "transparent": "transparent pixels have no defined colour",
    "truncated": "the data ends early or is damaged",
    "no_face": "no face was found in it, and --unaligned drop was asked for",
}
# Decoding holds at most about 11 bytes a pixel (a progressive JPEG's coefficients, then its pixels
# twice): 275 MB at this limit.
MAX_PIXELS = 25_000_000
_WEBP_SHARE = 0.6  # of the limit: Pillow needs 16 bytes a pixel for WebP
MIN_SIDE = 16
_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
_STRIP = 1 << 20  # pixels converted at a time: Pillow copies twice on the way to an array
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour types
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATED = 1 << 20  # bytes at a time
_PLAIN = {b"IHDR", b"IDAT", b"IEND", b"gAMA", b"pHYs", b"sRGB", b"tEXt", b"tIME"}
_DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
# Pillow's lazy plugins load once; formats beyond these are rejected as unknown.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """Decode an image to RGB uint8 of shape (H, W, 3); raise `RejectedImage` with a named reason."""
    return as_three(decode_lean(data, max_pixels=max_pixels, min_side=min_side))


def as_three(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 1) repeated to (H, W, 3); (H, W, 3) itself."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def decode_lean(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """The same as (H, W, 1) where the file itself is grey, else (H, W, 3)."""
    if not data:
        raise RejectedImage("empty", "0 bytes")
    _check_webp(data, max_pixels)
    if data[:8] == _PNG:
        chunks = _check_png(data)
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        _check_size(width, height, max_pixels, min_side)
        if chunks <= _PLAIN and data[24] == 8 and data[25] == 0 and data[28] == 0:
            plain = _plain_png(data, width, height)
            if plain is not None:
                return plain
        _check_inflated(data, width, height)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about what we check ourselves
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_header(image, data, max_pixels, min_side)
                image.load()
                return _pixels(image)
    except RejectedImage:
        raise
    except UnidentifiedImageError:
        raise RejectedImage("unknown_format", f"{len(data)} bytes starting {data[:8]!r}") from None
    except Image.DecompressionBombError as error:
        raise RejectedImage("too_large", str(error)) from None
    except MemoryError:
        raise RejectedImage("too_large", "does not fit memory") from None
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        raise RejectedImage("truncated", str(error) or type(error).__name__) from None


def _plain_png(data: bytes, width: int, height: int) -> NDArray[np.uint8] | None:
    """A grey 8-bit PNG without anything special, whose checksums are right, by OpenCV: three times as fast.

    None where OpenCV does not read it; then Pillow decides.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or image.shape != (height, width):
        return None
    return np.asarray(image[..., None], np.uint8)


def _check_size(width: int, height: int, max_pixels: int, min_side: int) -> None:
    if width * height > max_pixels:
        raise RejectedImage("too_large", f"{width}×{height} pixels, limit {max_pixels:,}")
    if min(width, height) < min_side:
        raise RejectedImage("too_small", f"{width}×{height} pixels, at least {min_side} a side")


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels (H, W, 1 or 3) of a loaded image, upright; each step frees what the last one held."""
    if image.getexif().get(_ORIENTATION, 1) != 1:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "L" and not image.has_transparency_data:
        return np.asarray(image)[..., None]
    if image.has_transparency_data:
        image = image if image.mode in {"RGBA", "LA"} else image.convert("RGBA")
        opaque = image.getchannel("A").histogram()[255] / (image.width * image.height)
        if opaque < 1:
            raise RejectedImage("transparent", f"{1 - opaque:.1%} of the pixels")
    if image.width * image.height <= _STRIP:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    out = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        out[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return out


def _check_inflated(data: bytes, width: int, height: int) -> None:
    """Whether a PNG's pixel data are as long as its header says: Pillow fills up what is missing in silence."""
    depth, color, interlaced = data[24], data[25], data[28]
    bits = depth * _CHANNELS.get(color, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for x, y, dx, dy in passes:
        columns, rows = -((x - width) // dx), -((y - height) // dy)
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    size, offset, inflate = 0, 8, zlib.decompressobj()
    try:
        while data[offset + 4 : offset + 8] != b"IEND":
            length = int.from_bytes(data[offset : offset + 4])
            if data[offset + 4 : offset + 8] == b"IDAT":
                part = data[offset + 8 : offset + 8 + length]
                while part and size <= expected:
                    size += len(inflate.decompress(part, _INFLATED))
                    part = inflate.unconsumed_tail
            offset += 12 + length
        size += len(inflate.flush(_INFLATED))
    except zlib.error as error:
        raise RejectedImage("truncated", str(error)) from None
    if size < expected:
        raise RejectedImage("truncated", f"{size} bytes of pixel data, {expected} announced")


def _check_header(image: Image.Image, data: bytes, max_pixels: int, min_side: int) -> None:
    _check_size(*image.size, max_pixels, min_side)
    if getattr(image, "n_frames", 1) > 1:
        raise RejectedImage("animated", f"{getattr(image, 'n_frames', 0)} frames")
    if image.mode in _DEEP_MODES or _png_depth(data) > 8:
        raise RejectedImage("sixteen_bit", f"mode {image.mode}")
    if image.mode == "CMYK":
        raise RejectedImage("cmyk", "mode CMYK")


def _check_webp(data: bytes, max_pixels: int) -> None:
    """A WebP's size from its header: opening it makes Pillow allocate two canvases, decoding a third."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[offset : offset + 2], "little") & 0x3FFF for offset in (26, 28))
    limit = int(max_pixels * _WEBP_SHARE)
    if width * height > limit:
        raise RejectedImage("too_large", f"{width}×{height} pixels, limit for WebP {limit:,}")


def _check_png(data: bytes) -> set[bytes]:
    """The names of the chunks, each of which must be whole with a correct CRC; the last one must be IEND.

    Pillow does not check the CRCs of the pixel chunks.
    """
    view, offset, names = memoryview(data), 8, set()
    if data[8:16] != b"\0\0\0\rIHDR":
        raise RejectedImage("truncated", "a PNG without its header")
    while offset + 12 <= len(view):
        length = int.from_bytes(view[offset : offset + 4])
        end = offset + 12 + length
        if end > len(view):
            raise RejectedImage("truncated", "a chunk ends after the file")
        if zlib.crc32(view[offset + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise RejectedImage("truncated", f"chunk {bytes(view[offset + 4 : offset + 8])!r} has a wrong checksum")
        names.add(bytes(view[offset + 4 : offset + 8]))
        if b"IEND" in names:
            return names
        offset = end
    raise RejectedImage("truncated", "the end chunk is missing")


def _png_depth(data: bytes) -> int:
    """Bits a channel that a PNG's header states (Pillow quietly reduces 16-bit RGB); 0 for others."""
    return data[24] if data[:8] == _PNG and len(data) > 24 else 0


def image_id(image: NDArray[np.uint8]) -> str:
    """sha256 of the decoded pixels and their shape: equal for equal images in any file format.

    `image` is (H, W, 1 or 3); where all channels are equal one of them is hashed.
    """
    height, width, _ = image.shape
    grey = is_grey(image)
    digest = hashlib.sha256(f"mien-{'grey' if grey else 'rgb'}8:{height}x{width}:".encode())
    digest.update(np.ascontiguousarray(image[..., :1] if grey else image).data)
    return digest.hexdigest()


def is_grey(rgb: NDArray[np.uint8]) -> bool:
    """Whether all channels are equal everywhere."""
    if rgb.shape[2] == 1:
        return True
    rows = max(1, _STRIP // rgb.shape[1])
    strips = (rgb[top : top + rows] for top in range(0, len(rgb), rows))
    return all(bool((strip == strip[..., :1]).all()) for strip in strips)
