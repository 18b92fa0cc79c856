"""The vectorised hash against scipy's DCT, and what it should and should not move with."""

import cv2
import numpy as np
from scipy.fft import dctn

from mien.data.phash import perceptual_hash
from mien.synthetic import draw_face


def bits(a, b):
    return int(a ^ b).bit_count()


def naive(picture):
    small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = dctn(small.astype(float), type=2)[:8, :8].ravel()
    value = 0
    for bit in low > np.median(low[1:]):
        value = value * 2 + int(bit)
    return value


def test_equals_scipys_dct():
    faces = [draw_face(0, i, 48).picture for i in range(20)]
    assert [int(h) for h in perceptual_hash(faces)] == [naive(f) for f in faces]


def test_brightness_moves_it_less_than_another_face():
    faces = [draw_face(0, 5 * i, 48).picture for i in range(30)]
    brighter = [np.clip(f * 0.9 + 8, 0, 255).astype(np.uint8) for f in faces]
    a, b = perceptual_hash(faces), perceptual_hash(brighter)
    same = [bits(x, y) for x, y in zip(a, b, strict=True)]
    other = [bits(x, y) for x, y in zip(a[:-1], a[1:], strict=True)]
    assert max(same) < np.median(other) / 2
