"""The one crop."""

import numpy as np
import pytest

from mien.core.errors import InputError
from mien.core.geometry import CropSpec, as_rgb, crop_face, crop_square, fit_square, resize, to_grey

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_equal_size_is_untouched():
    square = IMAGE[:48, :48]
    assert (fit_square(square, 48) == square).all()
    assert (resize(np.ascontiguousarray(square), 48) == square).all()


def test_a_crop_inside_the_image_is_those_pixels():
    found = crop_face(IMAGE, (10, 5, 32, 32), CropSpec(size=32))
    assert (found == IMAGE[5:37, 10:42]).all()


def test_scale_and_shift_move_the_square():
    assert crop_square((10, 20, 20, 40), CropSpec(size=32, scale=1.5, shift_y=0.25)) == (-10, 20, 60, 60)


def test_beyond_the_image_the_edge_is_replicated():
    found = crop_face(IMAGE, (-16, 0, 32, 32), CropSpec(size=32))
    assert (found[:, :16] == IMAGE[:32, :1]).all()
    assert (found[:, 16:] == IMAGE[:32, :16]).all()


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (float("nan"), 0, 10, 10), (500, 500, 20, 20)])
def test_impossible_boxes(box):
    with pytest.raises(InputError):
        crop_face(IMAGE, box, CropSpec(size=32))


def test_images_are_checked():
    assert as_rgb(IMAGE[..., 0]).shape == (60, 80, 3)
    for bad in (IMAGE.astype(float), IMAGE[..., :2], "x"):
        with pytest.raises(InputError, match="RGB or grey uint8"):
            as_rgb(bad)


def test_grey_of_grey_is_itself():
    grey = np.repeat(IMAGE[..., :1], 3, axis=2)
    assert (to_grey(grey) == IMAGE[..., :1]).all()
