"""Two reports beside each other: paired statistics against scikit-learn and counts by hand, and refusals."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from helpers import documents, faces
from mien.cli import run
from mien.core.errors import InputError
from mien.core.labels import LABELS
from mien.evaluate.metrics import softmax
from mien.evaluate.paired import paired

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("compared")]  # what is made once is made on one worker

SPLITS = np.array(["val"] * 200 + ["calib"] * 500 + ["test"] * 300)


def made(root, noise, *, seed=5, rename="", backwards=False):
    """A folder of ensembles of two imported models, judged on test."""
    truth, y = faces.simulated(1000, seed=seed, skill=2.0)
    ids = np.array([f"{rename}face_{i:04d}.png" for i in range(1000)])
    order = np.arange(1000)[::-1] if backwards else np.arange(1000)
    runs = []
    for number, (name, strength) in enumerate(noise.items()):
        z = truth + np.random.default_rng(number).normal(0, strength, truth.shape)
        file = root / f"{name}.npz"
        np.savez(
            file, image_id=ids[order], label=y[order], split=SPLITS[order], logits=z[order], classes=np.array(LABELS)
        )
        flags = ["--label-numbers", "mien", "--kind", "logits"]
        assert run(["predictions", "import", str(file), "--out", str(root / name), *flags]) == 0
        assert run(["calibrate", str(root / name), "--resamples", "40"]) == 0
        runs.append(str(root / name))
    assert run(["ensemble", *runs, "--out", str(root / "ens"), "--resamples", "100"]) == 0
    assert run(["evaluate", str(root / "ens"), "--all", "--resamples", "100"]) == 0
    return root / "ens"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The first with weak models `a` and `b`, the second with a better `a` and a `c`, its rows in another order."""
    first = made(tmp_path_factory.mktemp("one"), {"a": 2.0, "b": 2.0})
    second = made(tmp_path_factory.mktemp("two"), {"a": 0.5, "c": 1.0}, backwards=True)
    return first, second


@pytest.fixture(scope="module")
def compared(two):
    first, second = two
    assert run(["report", "--compare", str(first), str(second), "--format", "html,docx,pdf,md"]) == 0
    (folder,) = (second / "report").glob("beside-*")
    return folder


def test_the_statistics_are_paired_by_image(two, compared):
    from sklearn.metrics import f1_score

    from mien.core.artifacts.predictions import read_predictions

    found = json.loads((compared / "comparison.json").read_text())
    (entry,) = found["models"]
    assert (entry["first"], entry["second"], found["n"]) == ("a", "a", 300)
    tables = [read_predictions(root / "a" / "predictions" / "test.parquet", allow_test=True) for root in two]
    said = [dict(zip(t.image_ids.tolist(), t.logits.argmax(1).tolist(), strict=True)) for t in tables]
    truth = dict(zip(tables[0].image_ids.tolist(), tables[0].labels.tolist(), strict=True))
    f1 = [f1_score(list(truth.values()), [s[i] for i in truth], average="macro") for s in said]
    assert entry["delta"]["macro_f1"] == pytest.approx(f1[1] - f1[0], abs=1e-12)
    right = [{i for i in truth if s[i] == truth[i]} for s in said]
    assert entry["mcnemar"]["only_first"] == len(right[1] - right[0])
    assert entry["mcnemar"]["only_second"] == len(right[0] - right[1])
    assert entry["ci95"]["macro_f1"][0] > 0
    assert entry["p_holm"] == pytest.approx(entry["mcnemar"]["p"])


def test_what_only_one_of_them_has_is_named(compared):
    found = json.loads((compared / "comparison.json").read_text())
    assert found["only"] == {"first": ["b"], "second": ["c"]}
    text = documents.html_text(compared / "index.html")
    assert "Only one/ens has: b." in text.replace("one0", "one")
    assert "The interval excludes zero" in text


def test_all_formats_say_the_same_and_every_number_has_its_path(two, compared):
    texts = [
        documents.html_text(compared / "index.html"),
        documents.markdown_text(compared / "report.md"),
        documents.docx_text(compared / "report.docx"),
    ]
    counts = [Counter(documents.DECIMAL.findall(text)) for text in texts]
    assert counts[0] == counts[1] == counts[2]
    assert (compared / "report.pdf").read_bytes().startswith(b"%PDF-")
    entries = json.loads((compared / "numbers.json").read_text())["numbers"]
    assert len(entries) > 50
    for entry in entries:
        values = [documents.resolve(two[1], s["file"], s["path"]) for s in entry["sources"]]
        values = [1.0] * len(values) if entry["operation"] == "count" else [float(v) for v in values]
        expected = documents.rounded(values, entry)
        assert entry["text"] == expected or float(expected) == 0 == float(entry["text"]), entry
    assert not any(documents.FORBIDDEN.findall(text) for text in texts)


def test_other_test_images_and_other_labels_are_refused(two, compared, tmp_path, capsys):
    from mien.core.artifacts.predictions import read_predictions, write_predictions
    from mien.stages.compare_studies import compare

    first, second = two
    chosen = json.loads((second / "selected.json").read_text())["name"]
    copy = tmp_path / "copy"
    shutil.copytree(second.parent, copy)
    path = copy / "ens" / chosen / "predictions" / "test.parquet"
    test = read_predictions(path, allow_test=True)
    more = np.array([f"x{name}" if i < 7 else name for i, name in enumerate(test.image_ids)])
    for change, words in (
        ({"image_ids": more}, "has 300 test images and .* 300; 293 are the same"),
        ({"labels": np.where(np.arange(300) < 7, (test.labels + 1) % 7, test.labels)}, "7 of 300 test images have"),
    ):
        write_predictions(path, replace(test, **change), fingerprint="0" * 64)
        with pytest.raises(InputError, match=words):
            compare(first, copy / "ens")
    assert run(["report", "--compare", str(first), str(first)]) == 2
    assert run(["report"]) == 2
    assert "--compare A B" in capsys.readouterr().err


def test_a_pair_of_models_against_a_naive_bootstrap():
    truth, y = faces.simulated(250, seed=1)
    first, second = (
        softmax(truth + np.random.default_rng(i).normal(0, s, truth.shape)) for i, s in ((0, 0.3), (1, 1.5))
    )
    found = paired(first, second, y, resamples=400, seed=3)
    rng = np.random.default_rng(9)
    hit = (first.argmax(1) == y).astype(float) - (second.argmax(1) == y)
    naive = [hit[rng.integers(0, 250, 250)].mean() for _ in range(2000)]
    assert found["delta"]["accuracy"] == pytest.approx(hit.mean(), abs=1e-12)
    assert found["ci95"]["accuracy"] == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.02)
