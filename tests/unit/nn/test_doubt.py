"""What training does with doubted labels, and hard-example mining: against counts and a naive loop."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mien.core.artifacts.index import read_index
from mien.core.artifacts.suspects import read_suspects, write_suspects
from mien.core.config import TrainConfig, resolve
from mien.core.errors import ArtifactError, ConfigError, InputError
from mien.core.labels import N_CLASSES
from mien.nn.training import train_rows as doubt
from mien.nn.training import trainer as loop
from mien.nn.training.losses import focal, mean_of_hardest, soft_cross_entropy
from mien.nn.training.priors import shown_prior
from mien.nn.training.sampler import Sampler
from mien.nn.training.train_rows import train_rows
from mien.stages import train


@pytest.fixture(scope="module")
def doubted(small_index, tmp_path_factory):
    """Every tenth train row in doubt, with the next class as the suggestion."""
    index = read_index(small_index)
    rows = index.rows("train")
    labels = index.labels[rows]
    found = {
        "suspect": np.arange(len(rows)) % 10 == 0,
        "quality": np.full(len(rows), 0.5),
        "suggested": (labels + 1) % N_CLASSES,
    }
    folder = tmp_path_factory.mktemp("doubt") / "s"
    summary = {"index": index.content_hash}
    write_suspects(folder, index.image_ids[rows], labels, found, np.full((len(rows), 7), 1 / 7), summary, b"", "mark")
    return index, folder, found


def treated(index, folder, **settings):
    return train_rows(TrainConfig(suspects=str(folder), **settings), index)


def test_the_three_treatments(doubted):
    index, folder, found = doubted
    plain = train_rows(TrainConfig(), index)
    dropped = treated(index, folder)
    assert set(plain.rows) - set(dropped.rows) == set(plain.rows[found["suspect"]])
    changed = treated(index, folder, suspect_treatment="relabel")
    assert (changed.labels != plain.labels).tolist() == found["suspect"].tolist()
    assert (changed.targets.argmax(1) == changed.labels).all()
    lighter = treated(index, folder, suspect_treatment="downweight", suspect_weight=0.4)
    assert set(lighter.chance[found["suspect"]]) == {0.4}
    assert set(lighter.chance[~found["suspect"]]) == {1.0}
    assert plain.chance is None


def test_relabelling_file_and_refusals(doubted, tmp_path):
    index, folder, found = doubted
    lines = (folder / "relabel.csv").read_text().splitlines()
    assert len(lines) == 1 + found["suspect"].sum()
    with pytest.raises(InputError, match="another index"):
        read_suspects(folder, index="0" * 64)
    with pytest.raises(ArtifactError, match="mien suspects"):
        read_suspects(tmp_path / "none", index=index.content_hash)


@pytest.mark.parametrize("balanced", [True, False])
def test_suspects_are_drawn_less_often_and_epochs_keep_their_length(balanced):
    labels = np.repeat(np.arange(7), 60)
    chance = np.where(np.arange(420) % 4 == 0, 0.25, 1.0)
    sampler = Sampler(labels, 20, 0, balanced, chance)
    drawn = np.concatenate([sampler.rows(step) for step in range(40 * sampler.steps_per_epoch)])
    counts = np.bincount(drawn, minlength=420)
    assert len(drawn) == 40 * 420
    assert counts[chance < 1].mean() / counts[chance == 1].mean() == pytest.approx(0.25, abs=0.04)
    if balanced:
        assert np.bincount(labels[drawn]).tolist() == [40 * 60] * 7
    assert (Sampler(labels, 20, 0, balanced, np.zeros(420)).rows(0) < 420).all()


@pytest.mark.parametrize("balanced", [True, False])
def test_the_recorded_prior_counts_how_often_rows_are_drawn(balanced):
    """Two thirds of happy and all of fear are doubted, with other targets; the prior is that of 400 sampled epochs."""
    labels = np.repeat(np.arange(7), [20, 10, 20, 90, 60, 40, 30])
    chance = np.ones(270)
    chance[50:110], chance[30:50] = 0.2, 0.5
    targets = (0.8 * np.eye(7)[labels] + 0.2 * np.eye(7)[np.where(chance < 1, 6, 0)]).astype(np.float32)
    sampler = Sampler(labels, 27, 0, balanced, chance)
    drawn = np.concatenate([sampler.rows(step) for step in range(400 * sampler.steps_per_epoch)])
    shown = shown_prior(targets, labels, balanced=balanced, chance=chance)
    assert shown == pytest.approx(targets[drawn].mean(0), abs=0.004)
    assert abs(shown - shown_prior(targets, labels, balanced=balanced)).max() > 0.01


def test_the_prior_of_classes_that_are_doubted_to_nothing():
    """What may never be drawn is drawn after all where nothing else is there: a class, balanced, or everything."""
    labels = np.repeat(np.arange(7), 10)
    targets = np.eye(7, dtype=np.float32)[labels]
    nothing, no_fear = np.zeros(70), np.where(labels == 2, 0.0, 1.0)
    for chance, balanced, expected in (
        (nothing, True, np.full(7, 1 / 7)),
        (nothing, False, np.full(7, 1 / 7)),
        (no_fear, True, np.full(7, 1 / 7)),
        (no_fear, False, np.where(np.arange(7) == 2, 0, 1 / 6)),
    ):
        assert shown_prior(targets, labels, balanced=balanced, chance=chance) == pytest.approx(expected)
        sampler = Sampler(labels, 7, 0, balanced, chance)
        drawn = labels[np.concatenate([sampler.rows(step) for step in range(30)])]
        assert ((np.bincount(drawn, minlength=7) > 0) == (expected > 0)).all()


class Stopped(Exception):
    """Raised where the training itself would begin."""


def before_training(monkeypatch, folder, out, **settings):
    """The run's config.json, written before the first step, and how often the suspects were read for its rows."""
    reads = []
    monkeypatch.setattr(doubt, "read_suspects", lambda *a, **k: reads.append(a) or read_suspects(*a, **k))

    def stops(self):
        raise Stopped

    monkeypatch.setattr(loop.Trainer, "run", stops)
    small = {"backbone": "cnn", "head": "linear", "batch_size": 32, "suspects": str(folder), "balanced_sampling": False}
    config, origin = resolve(TrainConfig, ("flag", small | settings))
    with pytest.raises(Stopped):
        train.run(config, origin, out.parent / "index", out)
    return json.loads((out / "config.json").read_text()), len(reads)


def test_a_training_computes_its_rows_once_and_records_the_prior_that_it_shows(
    doubted, small_index, tmp_path, monkeypatch
):
    index, folder, found = doubted
    (tmp_path / "index").symlink_to(small_index)
    weights = {"suspect_treatment": "downweight", "suspect_weight": 0.25}
    config, reads = before_training(monkeypatch, folder, tmp_path / "r", **weights)
    assert reads == 1
    counts = np.zeros(7)
    for label, suspect in zip(index.labels[index.rows("train")], found["suspect"], strict=True):
        counts[label] += 0.25 if suspect else 1.0
    assert config["training_prior"] == pytest.approx(counts / counts.sum())


def test_under_hard_example_mining_the_prior_is_unknown_and_no_other_can_be_asked_for(
    doubted, small_index, tmp_path, monkeypatch
):
    _, folder, _ = doubted
    (tmp_path / "index").symlink_to(small_index)
    config, _ = before_training(monkeypatch, folder, tmp_path / "r", hard_share=0.5)
    assert config["training_prior"] is None
    assert config["predicts_prior"] is None
    for wanted in ("natural", "uniform"):
        with pytest.raises(ConfigError, match="leaves them unknown"):
            resolve(TrainConfig, ("flag", {"hard_share": 0.5, "predict_prior": wanted}))


def test_without_suspects_the_order_is_what_it_was():
    labels = np.repeat(np.arange(7), 30)
    for balanced in (True, False):
        a, b = Sampler(labels, 16, 3, balanced), Sampler(labels, 16, 3, balanced, np.ones(210))
        assert all((a.rows(step) == b.rows(step)).all() for step in range(30))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_hardest_share_against_a_naive_loop(share):
    generator = torch.Generator().manual_seed(0)
    z, t = (
        torch.randn(20, 7, generator=generator, dtype=torch.float64),
        torch.eye(7, dtype=torch.float64)[torch.arange(20) % 7],
    )
    each = sorted((float(soft_cross_entropy(z[i : i + 1], t[i : i + 1])) for i in range(20)), reverse=True)
    kept = each[: max(1, round(share * 20))]
    assert float(soft_cross_entropy(z, t, share)) == pytest.approx(np.mean(kept))
    assert float(mean_of_hardest(torch.tensor(each, dtype=torch.float64), share)) == pytest.approx(np.mean(kept))
    assert float(focal(z, t, 0.0, share)) == pytest.approx(np.mean(kept))
