"""Distillation's fast path: the student sees what the teacher saw, and the teacher is asked once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mien.core.artifacts.index import read_index
from mien.core.artifacts.teacher_views import read_view, write_view
from mien.core.config import DistillConfig, resolve
from mien.nn.training.batches import Batches
from mien.nn.training.train_rows import train_rows

STRONG = {
    "backbone": "cnn",
    "batch_size": 32,
    "epochs": 4,
    "rotate": 20.0,
    "crop_min": 0.6,
    "jitter": 0.3,
    "erase": 0.5,
    "clahe": 0.3,
    "randaugment": 2,
    "label_smoothing": 0.0,
    "minority_boost": 1.5,
}


class Teacher:
    """Log-probabilities that depend on every pixel; counts the images it was asked for."""

    def __init__(self):
        self.asked = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += len(x)
        pixels = x.double().flatten(1)
        weights = torch.sin(torch.arange(pixels.shape[1], dtype=torch.float64)[:, None] * torch.arange(1, 8))
        return torch.log_softmax(pixels @ weights / pixels.shape[1], 1).float()


def batches(index, folder, teacher, *, views=2, **changes) -> Batches:
    config, _ = resolve(DistillConfig, ("flag", STRONG | changes))
    out = Batches(config, index, train_rows(config, index), torch.device("cpu"), rank=0, world=1)
    out.use_views(views, folder, None if teacher is None else lambda: teacher)
    return out


@pytest.fixture
def index(small_index):
    return read_index(small_index)


def test_the_student_sees_the_pixels_that_the_teacher_saw(index, tmp_path):
    teacher = Teacher()
    shown = batches(index, tmp_path, teacher)
    steps = shown.sampler.steps_per_epoch
    for step in (0, 1, steps, 2 * steps + 3):
        batch = shown(step, 0.0)
        assert batch.teacher_log_probs.numpy() == pytest.approx(teacher(batch.images.float()).numpy(), abs=1e-5)
    shown.close()


@pytest.mark.parametrize("mixing", ["none", "mixcut"])
def test_a_plain_twin_sees_the_same_pixels_and_needs_no_teacher(index, tmp_path, mixing):
    taught, plain = (batches(index, tmp_path, teacher, mixing=mixing) for teacher in (Teacher(), None))
    steps = taught.sampler.steps_per_epoch
    for step in (0, 1, steps, 2 * steps + 3):
        one, twin = taught(step, 1.0), plain(step, 1.0)
        assert (one.images == twin.images).all()
        assert (one.target == twin.target).all()
        assert twin.teacher_log_probs is None
    taught.close(), plain.close()


def test_each_view_is_asked_for_once_and_shown_in_turn(index, tmp_path):
    teacher = Teacher()
    shown = batches(index, tmp_path, teacher)
    steps, n = shown.sampler.steps_per_epoch, len(index.rows("train"))
    views = [shown.views.images(v, np.arange(5)) for v in range(2)]
    assert (views[0] != views[1]).any()
    for step in range(0, 4 * steps, steps):
        shown(step, 0.0)
    assert teacher.asked == 2 * n
    again = batches(index, tmp_path, teacher, seed=5)  # another seed of the student's shares the views
    again(0, 0.0)
    assert teacher.asked == 2 * n
    assert (again.views.images(0, np.arange(5)) == views[0]).all()
    other = batches(index, tmp_path, teacher, rotate=5.0)  # another augmentation does not
    other(0, 0.0)
    assert teacher.asked == 3 * n
    for one in (shown, again, other):
        one.close()


def test_students_side_by_side_share_what_one_of_them_computes(index, tmp_path):
    begun, teacher = threading.Event(), Teacher()

    def slow(images):
        begun.set()
        time.sleep(0.05)
        return teacher(images)

    first, second = (batches(index, tmp_path, slow, seed=seed) for seed in (0, 1))
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first, 0, 0.0)
        assert begun.wait(60)
        other = pool.submit(second, 0, 0.0)  # the view is being computed: it is waited for
        one.result(), other.result()
    assert teacher.asked == len(index.rows("train"))
    first.close(), second.close()


def test_an_image_is_augmented_alike_in_every_batch(index, tmp_path):
    views = batches(index, tmp_path, Teacher()).views
    whole = views.images(0, np.arange(40))
    for positions in (np.array([7]), np.array([39, 7, 7, 0])):
        assert torch.allclose(views.images(0, positions), whole[torch.from_numpy(positions)], atol=1e-3)


def test_a_mixed_image_is_taught_the_mixture(index, tmp_path):
    teacher = Teacher()
    plain, mixed = (batches(index, tmp_path, teacher, mixing=kind, mix_alpha=1.0) for kind in ("none", "mixup"))
    before, after = plain(0, 0.0), mixed(0, 1.0)
    order = torch.arange(32) ^ 1
    # the share of each pair, from its pixels
    first, second = before.images.float(), before.images.float()[order]
    share = float(((after.images - second) * (first - second)).sum() / (first - second).square().sum())
    assert 0 < share < 1
    expected = share * before.teacher_log_probs.exp() + (1 - share) * before.teacher_log_probs.exp()[order]
    assert after.teacher_log_probs.exp().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    targets = share * before.target + (1 - share) * before.target[order]
    assert after.target.numpy() == pytest.approx(targets.numpy(), abs=1e-5)
    for one in (plain, mixed):
        one.close()


def test_a_torn_view_is_made_again(tmp_path):
    array = np.zeros((10, 7), np.float32)
    write_view(tmp_path, 0, array)
    path = tmp_path / "000.npy"
    assert (read_view(tmp_path, 0, (10, 7)) == array).all()
    assert read_view(tmp_path, 0, (11, 7)) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert read_view(tmp_path, 0, (10, 7)) is None
    assert read_view(tmp_path, 1, (10, 7)) is None
