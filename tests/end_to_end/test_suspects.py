"""Planted label noise on drawn faces: found by networks of other folds, and used by a training."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mien.cli import run
from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import read_run
from mien.core.artifacts.suspects import read_suspects
from mien.core.labels import LABELS

SMALL = ["--backbone", "cnn", "--head", "linear", "--batch-size", "32", "--lr", "3e-3"]


@pytest.mark.trains
def test_planted_noise_on_drawn_faces(tmp_path, capsys):
    """A tenth of the train labels changed by a relabelling file: such rows are doubted more than others.

    The trainings are far too short for good suspects; benchmarks/label_noise.py has longer ones.
    """
    build = ["index", "build", "--source", "synthetic=1050", "--size", "32", "--detector", "none"]
    assert run([*build, "--out", str(tmp_path / "clean")]) == 0
    clean = read_index(tmp_path / "clean")
    rng, rows = np.random.default_rng(0), clean.rows("train")
    planted = {
        clean.image_ids[r]: LABELS[(clean.labels[r] + rng.integers(1, 7)) % 7] for r in rows if rng.random() < 0.1
    }
    noisy = tmp_path / "noisy.csv"
    noisy.write_text("image_id,label\n" + "".join(f"{i},{name}\n" for i, name in planted.items()))
    assert run([*build, "--relabel", str(noisy), "--out", str(tmp_path / "index")]) == 0
    command = ["suspects", "--index", str(tmp_path / "index"), "--out", str(tmp_path / "s"), "--folds", "3"]
    capsys.readouterr()
    assert run([*command, *SMALL, "--epochs", "10", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    index = read_index(tmp_path / "index")
    found = read_suspects(tmp_path / "s", index=index.content_hash)
    wrong = np.array([name in planted for name in found.image_ids.tolist()])
    assert wrong.mean() == pytest.approx(0.1, abs=0.03)
    assert told["suspects"] == found.suspect.sum() > 0
    assert roc_auc_score(wrong, 1 - found.quality) > 0.6
    assert cv2.imread(str(tmp_path / "s" / "sheet.png")) is not None
    # it goes on where it was, and a training uses it
    assert run([*command, *SMALL, "--epochs", "10"]) == 0
    assert "already" in capsys.readouterr().err
    use = ["train", "--index", str(tmp_path / "index"), *SMALL, "--epochs", "1", "--suspects", str(tmp_path / "s")]
    hashes = set()
    for treatment in ("drop", "downweight", "relabel"):
        assert run([*use, "--suspect-treatment", treatment, "--out", str(tmp_path / treatment)]) == 0
        trained = read_run(tmp_path / treatment)
        hashes.add(trained.weights_hash)
        left = len(index.rows("train")) - (int(found.suspect.sum()) if treatment == "drop" else 0)
        assert trained.config["train_rows"] == left
    assert (
        run(["train", "--index", str(tmp_path / "index"), *SMALL, "--epochs", "1", "--out", str(tmp_path / "p")]) == 0
    )
    assert len(hashes | {read_run(tmp_path / "p").weights_hash}) == 4
    assert run([*use[:2], str(tmp_path / "clean"), *use[3:], "--out", str(tmp_path / "no")]) == 2
    assert "another index" in capsys.readouterr().err
