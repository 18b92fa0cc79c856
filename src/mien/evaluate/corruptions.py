"""What cameras, rooms and detectors do to faces: nine corruptions at five strengths, on packed crops.

In the spirit of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), with what matters to faces: sizes are
shares of the crop's side, so that they mean the same at 48 and 224 px, and what is covered is where a tightly cropped
face has its eyes or mouth.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from mien.core.errors import InputError, nearest

ImageArray = NDArray[np.uint8]
STRENGTHS = (1, 2, 3, 4, 5)
_BLUR = (0.01, 0.02, 0.03, 0.045, 0.06)  # sigma over side
_NOISE = (8, 16, 26, 38, 52)  # standard deviation, grey levels
_JPEG = (40, 25, 15, 9, 5)  # quality
_LIGHT = (0.6, 0.42, 0.3, 0.2, 0.12)  # share of the light that is left
_COVER = (0.3, 0.5, 0.7, 0.85, 1.0)  # share of the band's width
_SMALL = (0.6, 0.45, 0.33, 0.25, 0.18)  # side that is left
_TURN = (8, 15, 22, 30, 40)  # degrees to either side
_BOX = (0.03, 0.06, 0.1, 0.14, 0.18)  # of the side, by which the box moves and its scale changes at most
_EYES, _MOUTH = (0.22, 0.48), (0.62, 0.92)  # bands of the crop's height


def _blur(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _BLUR[s] * image.shape[0]), dtype=np.uint8)


def _noise(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    added = image + rng.normal(0, _NOISE[s], (*image.shape[:2], 1))
    return np.asarray(np.clip(np.rint(added), 0, 255), dtype=np.uint8)


def _jpeg(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG[s]])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def _low_light(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    """Fewer photons: darker, and noise that grows with the root of the light."""
    light = image / 255.0 * _LIGHT[s]
    grain = rng.normal(0, 1, (*image.shape[:2], 1)) * np.sqrt(light.mean(2, keepdims=True) / 400)
    return np.asarray(np.clip(np.rint(255 * (light + grain)), 0, 255), dtype=np.uint8)


def _cover(image: ImageArray, s: int, band: tuple[float, float]) -> ImageArray:
    side, width = image.shape[0], round(_COVER[s] * image.shape[1])
    left = (image.shape[1] - width) // 2
    out = image.copy()
    out[round(band[0] * side) : round(band[1] * side), left : left + width] = 96
    return out


def _occlude_eyes(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    return _cover(image, s, _EYES)


def _occlude_mouth(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    return _cover(image, s, _MOUTH)


def _low_resolution(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    side = image.shape[0]
    small = max(4, round(_SMALL[s] * side))
    down = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(down, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _rotation(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    side = image.shape[0]
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), _TURN[s] * rng.choice((-1, 1)), 1.0)
    return np.asarray(cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def _shifted_box(image: ImageArray, s: int, rng: np.random.Generator) -> ImageArray:
    """The crop of a box whose centre and scale are off by up to a share of its side; edges are replicated."""
    side, most = image.shape[0], _BOX[s]
    scale = np.exp(rng.uniform(-1, 1) * np.log1p(most))
    moved = (1 - scale) * (side - 1) / 2 + rng.uniform(-most, most, 2) * side
    back = np.array([[scale, 0, moved[0]], [0, scale, moved[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image, back, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, dtype=np.uint8)


CORRUPTIONS: dict[str, Callable[[ImageArray, int, np.random.Generator], ImageArray]] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "low_light": _low_light,
    "occlude_eyes": _occlude_eyes,
    "occlude_mouth": _occlude_mouth,
    "low_resolution": _low_resolution,
    "rotation": _rotation,
    "shifted_box": _shifted_box,
}


def corrupt(images: ImageArray, name: str, strength: int, *, seed: int = 0) -> ImageArray:
    """Square crops (n, s, s, 1 or 3), corrupted at a strength from 1 to 5; each image's randomness is its own."""
    if name not in CORRUPTIONS or strength not in STRENGTHS:
        raise InputError(
            f"Corruption {name!r} at strength {strength}.",
            rule=f"One of {', '.join(CORRUPTIONS)}, at 1 to 5.",
            fix=nearest(name, CORRUPTIONS).strip(),
        )
    change, channels = CORRUPTIONS[name], images.shape[3]
    out = np.empty_like(images)
    for i, image in enumerate(images):
        colour = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
        changed = change(colour, strength - 1, np.random.default_rng([seed, strength, i]))
        out[i] = changed[..., :channels]
    return out
