"""The vectorised hash against scipy's DCT, and what it should and should not move with."""

import cv2
import numpy as np
from scipy.fft import dctn

from mien.data.duplicates.phash import Hasher, thumbnail, views
from mien.synthetic import draw_face


def bits(a, b):
    return int(a ^ b).bit_count()


def naive(image):
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    low = dctn(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA), type=2)[:8, :8].ravel()
    value = 0
    for bit in low > np.median(low[1:]):
        value = value * 2 + int(bit)
    return value


def hashes(images, kind="plain"):
    return Hasher(kind)(np.stack([thumbnail(p) for p in images]))


def test_equals_scipys_dct():
    faces = [draw_face(0, i, 48).image for i in range(20)]
    assert [int(h) for h in hashes(faces)[:, 0]] == [naive(f) for f in faces]


def test_the_mirrored_view_is_the_hash_of_the_mirrored_image():
    faces = [draw_face(0, i, 48).image for i in range(20)]
    mirrored = [np.ascontiguousarray(f[:, ::-1]) for f in faces]
    assert (hashes(faces)[:, 1] == hashes(mirrored)[:, 0]).all()


def test_a_view_is_the_hash_of_that_crop():
    """Five per cent off: whole crops cut and enlarged by OpenCV meet the view's hash within a few bits."""
    known = views("crops")
    at = known.index(next(v for v in known if (v.cut, v.down, v.right, v.flip) == (0.10, 0.0, 1.0, False)))
    far = []
    for number in range(20):
        image = draw_face(0, number, 480).image
        crop = cv2.resize(image[:432, 48:], (480, 480), interpolation=cv2.INTER_LINEAR)
        far.append(bits(int(hashes([image], "crops")[0, at]), int(hashes([crop])[0, 0])))
    assert np.mean(far) < 3


def test_brightness_moves_it_less_than_another_face():
    faces = [draw_face(0, 5 * i, 48).image for i in range(30)]
    brighter = [np.clip(f * 0.9 + 8, 0, 255).astype(np.uint8) for f in faces]
    a, b = hashes(faces)[:, 0].tolist(), hashes(brighter)[:, 0].tolist()
    same = [bits(x, y) for x, y in zip(a, b, strict=True)]
    other = [bits(x, y) for x, y in zip(a[:-1], a[1:], strict=True)]
    assert max(same) < np.median(other) / 2
