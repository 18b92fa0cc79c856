"""An image of a video's table: for each face its labels and probabilities over time."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien.core.labels import LABELS
from mien.runtime.overlay import COLOURS

WIDTH, LEFT, RIGHT, BAND, AREA, HEAD, FOOT, GAP = 1400, 120, 20, 18, 110, 70, 40, 26
PAPER, INK, NOTHING, UNSURE = (255, 255, 255), (40, 40, 40), (238, 238, 238), (90, 90, 90)
MOST_FACES = 8  # those that are present longest


@dataclass(frozen=True)
class Course:
    """One face over time: times (n,), smoothed probabilities (n, 7), class numbers (n,), -1 for none."""

    face_id: int
    times: NDArray[np.float64]
    smooth: NDArray[np.float64]
    raw: NDArray[np.int64]
    labels: NDArray[np.int64]


def courses(table: pa.Table) -> list[Course]:
    """Faces of a frame table, those that are present longest first."""
    ids = np.array([-1 if v is None else v for v in table["face_id"].to_pylist()])
    times = table["time_s"].to_numpy()
    smooth = np.stack([table[f"smooth_{name}"].to_numpy() for name in LABELS], 1).astype(np.float64)
    number = {name: k for k, name in enumerate(LABELS)}
    labels = {
        key: np.array([number.get(v, -1) for v in table[key].to_pylist()], np.int64) for key in ("raw_label", "label")
    }
    faces = []
    for face_id in np.unique(ids[ids >= 0]):
        rows = ids == face_id
        faces.append(Course(int(face_id), times[rows], smooth[rows], labels["raw_label"][rows], labels["label"][rows]))
    return sorted(faces, key=lambda c: -len(c.times))


def draw_timeline(table: pa.Table, title: str) -> bytes:
    """A PNG: for each face a band of raw labels, one of shown labels, and the smoothed probabilities stacked."""
    faces = courses(table)
    drawn, last = faces[:MOST_FACES], float(table["time_s"].to_numpy()[-1]) if len(table) else 0.0
    block = 2 * BAND + AREA + GAP
    image = Image.new("RGB", (WIDTH, HEAD + max(1, len(drawn)) * block + FOOT), PAPER)
    draw = ImageDraw.Draw(image)
    more = f"; {len(faces) - len(drawn)} more faces are not shown" if len(faces) > len(drawn) else ""
    draw.text((LEFT, 8), f"{title}: apparent expression{more}", INK, _font(18))
    _legend(draw)
    for k, face in enumerate(drawn):
        _face(draw, image, face, HEAD + k * block, last)
    if not drawn:
        draw.text((LEFT, HEAD + 20), "No face was seen.", INK, _font(16))
    _axis(draw, HEAD + max(1, len(drawn)) * block - GAP + 4, last)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _legend(draw: ImageDraw.ImageDraw) -> None:
    x = LEFT
    for name, colour in [*COLOURS.items(), ("unsure", UNSURE), ("no face", NOTHING)]:
        draw.rectangle((x, 40, x + 14, 54), colour, INK)
        draw.text((x + 20, 38), name, INK, _font(14))
        x += 40 + round(draw.textlength(name, _font(14)))


def _columns(face: Course, last: float) -> NDArray[np.int64]:
    """For each pixel column the face's row that is drawn there, -1 where the face is absent."""
    plot = WIDTH - LEFT - RIGHT
    moments = (np.arange(plot) + 0.5) / plot * max(last, 1e-9)
    row = np.searchsorted(face.times, moments, side="right") - 1
    steps = np.diff(face.times)
    longest = max(3 * float(np.median(steps)) if len(steps) else 0.0, 1.5 * max(last, 1e-9) / plot)
    absent = (row < 0) | (moments - face.times[np.maximum(row, 0)] > longest)
    return np.where(absent, -1, row)


def _face(draw: ImageDraw.ImageDraw, image: Image.Image, face: Course, top: int, last: float) -> None:
    columns = _columns(face, last)
    palette = np.array([*(COLOURS[name] for name in LABELS), UNSURE], np.uint8)
    pixels = np.empty((2 * BAND + AREA, len(columns), 3), np.uint8)
    pixels[:] = NOTHING
    present = columns >= 0
    rows = columns[present]
    pixels[: BAND - 2, present] = palette[face.raw[rows]]
    pixels[BAND : 2 * BAND - 2, present] = palette[face.labels[rows]]
    pixels[[BAND - 2, BAND - 1, 2 * BAND - 2, 2 * BAND - 1]] = PAPER
    # From below: angry first. A pixel belongs to the first class whose sum reaches it.
    heights = face.smooth[rows].cumsum(1)
    level = (AREA - np.arange(AREA) - 0.5) / AREA
    owner = np.minimum((heights[None] < level[:, None, None]).sum(2), len(LABELS) - 1)
    pixels[2 * BAND :, present] = palette[owner]
    image.paste(Image.fromarray(pixels), (LEFT, top))
    for text, y in (
        (f"face {face.face_id}", top - 16),
        ("raw", top),
        ("shown", top + BAND),
        ("smoothed", top + 2 * BAND + AREA // 2 - 8),
    ):
        draw.text((8, y), text, INK, _font(14))


def _axis(draw: ImageDraw.ImageDraw, y: int, last: float) -> None:
    plot = WIDTH - LEFT - RIGHT
    step = next((s for s in (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600) if last / s <= 14), 7200)
    draw.line((LEFT, y, LEFT + plot, y), INK)
    for k in range(int(last / step) + 1):
        x = LEFT + plot * k * step / max(last, 1e-9)
        draw.line((x, y, x, y + 5), INK)
        draw.text((x, y + 7), f"{k * step:g} s", INK, _font(13), anchor="ma")
