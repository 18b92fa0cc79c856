"""What training does with doubted labels, and hard-example mining: against counts and a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.core.artifacts.index import read_index
from mien.core.artifacts.suspects import read_suspects, write_suspects
from mien.core.config.train import TrainConfig
from mien.core.errors import ArtifactError, InputError
from mien.core.labels import N_CLASSES
from mien.nn.batches import Sampler
from mien.nn.doubt import train_rows
from mien.nn.losses import focal, mean_of_hardest, soft_cross_entropy


@pytest.fixture(scope="module")
def doubted(small_index, tmp_path_factory):
    """Every tenth train row in doubt, with the next class as the suggestion."""
    index = read_index(small_index)
    rows = index.rows("train")
    labels = index.labels[rows]
    found = {"suspect": np.arange(len(rows)) % 10 == 0, "quality": np.full(len(rows), 0.5), "suggested": (labels + 1) % N_CLASSES}  # fmt: skip
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


def test_without_suspects_the_order_is_what_it_was():
    labels = np.repeat(np.arange(7), 30)
    for balanced in (True, False):
        a, b = Sampler(labels, 16, 3, balanced), Sampler(labels, 16, 3, balanced, np.ones(210))
        assert all((a.rows(step) == b.rows(step)).all() for step in range(30))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_hardest_share_against_a_naive_loop(share):
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(20, 7, generator=generator, dtype=torch.float64), torch.eye(7, dtype=torch.float64)[torch.arange(20) % 7]  # fmt: skip
    each = sorted((float(soft_cross_entropy(z[i : i + 1], t[i : i + 1])) for i in range(20)), reverse=True)
    kept = each[: max(1, round(share * 20))]
    assert float(soft_cross_entropy(z, t, share)) == pytest.approx(np.mean(kept))
    assert float(mean_of_hardest(torch.tensor(each, dtype=torch.float64), share)) == pytest.approx(np.mean(kept))
    assert float(focal(z, t, 0.0, share)) == pytest.approx(np.mean(kept))
