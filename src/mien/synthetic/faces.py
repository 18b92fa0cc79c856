"""One synthetic face: a pure function of (seed, number, size)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.core.geometry import resize
from mien.core.labels import LABELS
from mien.synthetic.action_units import activate
from mien.synthetic.anatomy import draw_identity, draw_pose
from mien.synthetic.light import background, camera, occlude
from mien.synthetic.rendering import Canvas, draw_brows, draw_eyes, draw_head, draw_mouth, draw_nose

PER_PERSON = 5
_OVERSAMPLE = 2


@dataclass(frozen=True)
class Face:
    """A drawn face: `image` is RGB uint8 (size, size, 3)."""

    image: NDArray[np.uint8]
    label: str
    person: int
    action_units: dict[int, float]


def draw_face(seed: int, number: int, size: int = 64, *, label: str | None = None) -> Face:
    """Draw face `number` of the endless series `seed`; without `label` classes come at random.

    Every run of five numbers is one person.
    """
    person = number // PER_PERSON
    rng = np.random.default_rng([seed, 1, number])
    identity = draw_identity(np.random.default_rng([seed, 0, person]))
    drawn = LABELS[int(rng.integers(len(LABELS)))]
    label = label or drawn
    units = activate(label, rng)
    pose = draw_pose(rng)
    canvas = Canvas(background(size * _OVERSAMPLE, rng), pose)
    draw_head(canvas, identity, units, rng)
    draw_nose(canvas, identity, units)
    draw_eyes(canvas, identity, units, rng)
    draw_brows(canvas, identity, units)
    draw_mouth(canvas, identity, units)
    occlude(canvas.image, rng)
    return Face(camera(resize(canvas.image, size), rng), label, person, units)
