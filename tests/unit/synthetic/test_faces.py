"""Drawn faces: a pure function of their numbers, at any size, different by expression."""

import numpy as np
import pytest

from mien.core.labels import LABELS
from mien.synthetic import draw_face
from mien.synthetic.action_units import PROTOTYPES, UNITS, activate


def test_a_pure_function():
    a, b = draw_face(3, 17, 48), draw_face(3, 17, 48)
    assert (a.image == b.image).all()
    assert a.label == b.label
    assert (draw_face(4, 17, 48).image != a.image).any()


@pytest.mark.parametrize("size", [24, 48, 112])
def test_any_size_in_colour(size):
    face = draw_face(0, 1, size)
    assert face.image.shape == (size, size, 3)
    assert face.image.dtype == np.uint8
    assert face.image.std() > 10
    assert (face.image[..., 0] != face.image[..., 2]).any()


def test_five_numbers_are_one_person():
    assert len({draw_face(0, i, 24).person for i in range(5)}) == 1
    assert draw_face(0, 5, 24).person == 1


def test_prototypes_are_known_units():
    assert set(PROTOTYPES) == set(LABELS)
    for units in PROTOTYPES.values():
        assert set(units) <= set(UNITS)


def test_classes_differ_in_their_units_and_overlap_a_little():
    rng = np.random.default_rng(0)
    drawn = {label: np.array([list(activate(label, rng).values()) for _ in range(200)]) for label in LABELS}
    means = {label: units.mean(0) for label, units in drawn.items()}
    right = 0
    for label, units in drawn.items():
        nearest = [min(LABELS, key=lambda other: np.linalg.norm(u - means[other])) for u in units]
        right += sum(n == label for n in nearest)
    assert 0.8 < right / 1400 < 1.0
