"""Bytes to RGB uint8, or a named reason why not. No picture is ever silently replaced or altered.

The header is read first, so that a small file cannot ask for gigabytes; EXIF rotation is applied.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mien.core.errors import RejectedImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

REASONS: dict[str, str] = {
    "missing": "the file does not exist or cannot be opened",
    "empty": "the file has no bytes",
    "unknown_format": "the bytes are no picture that Pillow can identify",
    "too_large": "more pixels than the limit (header read, nothing decoded)",
    "too_small": "a side under 16 pixels shows no expression",
    "animated": "several frames: which one the label means is unknown",
    "sixteen_bit": "more than 8 bits a channel: the mapping to 8 bits is a choice that its owner must make",
    "cmyk": "CMYK without a defined conversion to RGB",
    "transparent": "transparent pixels have no defined colour",
    "truncated": "the data ends early or is damaged",
}
MAX_PIXELS = 50_000_000
MIN_SIDE = 16
_DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
# Pillow's lazy plugins load once; formats beyond these are rejected as unknown.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """Decode a picture to RGB uint8 of shape (H, W, 3); raise `RejectedImage` with a named reason."""
    if not data:
        raise RejectedImage("empty", "0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about what we check ourselves
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            _check_header(image, data, max_pixels, min_side)
            image.load()
            upright = ImageOps.exif_transpose(image)
            _check_alpha(upright)
            rgb = np.asarray(upright.convert("RGB"))
    except RejectedImage:
        raise
    except UnidentifiedImageError:
        raise RejectedImage("unknown_format", f"{len(data)} bytes starting {data[:8]!r}") from None
    except Image.DecompressionBombError as error:
        raise RejectedImage("too_large", str(error)) from None
    except MemoryError:
        raise RejectedImage("too_large", "does not fit memory") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise RejectedImage("truncated", str(error) or type(error).__name__) from None
    return np.ascontiguousarray(rgb)


def _check_header(image: Image.Image, data: bytes, max_pixels: int, min_side: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise RejectedImage("too_large", f"{width}×{height} pixels, limit {max_pixels:,}")
    if min(width, height) < min_side:
        raise RejectedImage("too_small", f"{width}×{height} pixels, at least {min_side} a side")
    if getattr(image, "n_frames", 1) > 1:
        raise RejectedImage("animated", f"{getattr(image, 'n_frames', 0)} frames")
    if image.mode in _DEEP_MODES or _png_depth(data) > 8:
        raise RejectedImage("sixteen_bit", f"mode {image.mode}")
    if image.mode == "CMYK":
        raise RejectedImage("cmyk", "mode CMYK")


def _png_depth(data: bytes) -> int:
    """Bits a channel that a PNG's header states (Pillow quietly reduces 16-bit RGB); 0 for others."""
    return data[24] if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 24 else 0


def _check_alpha(image: Image.Image) -> None:
    if not image.has_transparency_data:
        return
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    if alpha.min() < 255:
        raise RejectedImage("transparent", f"{float((alpha < 255).mean()):.1%} of the pixels")


def image_id(rgb: NDArray[np.uint8]) -> str:
    """sha256 of the decoded pixels and their shape: equal for equal pictures in any file format."""
    height, width, _ = rgb.shape
    digest = hashlib.sha256(f"mien-rgb8:{height}x{width}:".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def is_grey(rgb: NDArray[np.uint8]) -> bool:
    """Whether all three channels are equal everywhere."""
    return bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())
