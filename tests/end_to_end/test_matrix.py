"""A matrix of sources from its file to the tables; interrupted and gone on with; bad files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from helpers import layouts
from mien.cli import run
from mien.core.artifacts.calibration import read_calibration
from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import read_run
from mien.core.config.index import IndexConfig
from mien.core.config.matrix import load_matrix
from mien.core.errors import ArtifactError, ConfigError, UsageError
from mien.core.labels import LABELS
from mien.stages import index as stage
from mien.stages.matrix_tables import over_seeds
from mien.study.matrix import steps

MATRIX = """
name = "small"
seeds = [0, 1]
[index]
size = 32
color = "grey"
calib_fraction = 0.25
[[sources]]
name = "first"
source = ["synthetic=560"]
[[sources]]
name = "second"
source = ["synthetic=630"]
seed = 7
[train]
backbone = "cnn"
head = "linear"
epochs = 2
batch_size = 32
[calibrate]
method = "temperature"
[evaluate]
resamples = 100
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "matrix.toml"
    path.write_text(MATRIX)
    return path


@pytest.mark.trains
def test_a_matrix_goes_on_and_its_cells_are_what_the_networks_say(file, tmp_path, capsys, monkeypatch):
    from mien.nn.inference import load_network
    from mien.nn.predict import predict_logits
    from mien.stages import evaluate_on

    whole, calls = evaluate_on.run, []

    def stops(*arguments, **options):
        calls.append(arguments[0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(evaluate_on, "run", stops)
    out = tmp_path / "out"
    assert run(["matrix", str(file), "--out", str(out)]) == 130
    kept = out / "runs" / "first_seed-0"
    before = {p: p.stat().st_mtime_ns for p in (kept / "best.safetensors", kept / "evaluation.json")}
    capsys.readouterr()
    assert run(["matrix", str(file), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "matrix.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [(c["train"], c["test"]) for c in told["cells"]] == [
        (a, b) for a in ("first", "second") for b in ("first", "second")
    ]
    for cell in told["cells"]:
        index = read_index(out / "indexes" / cell["test"])
        rows = index.rows("test")
        assert cell["n"] == len(rows)  # different drawn faces: nothing was seen
        for entry in cell["runs"]:
            trained = read_run(out / "runs" / f"{cell['train']}_seed-{entry['seed']}")
            read_calibration(trained.folder / "calibration.json", weights_hash=trained.weights_hash)
            predicted = predict_logits(load_network(trained), index.pixels, rows).argmax(1)  # T keeps the labels
            assert entry["accuracy"] == pytest.approx(accuracy_score(index.labels[rows], predicted))
            truth = f1_score(index.labels[rows], predicted, average="macro", labels=range(7), zero_division=0)
            assert entry["macro_f1"] == pytest.approx(truth)
        scores = [entry["macro_f1"] for entry in cell["runs"]]
        assert cell["macro_f1"]["mean"] == pytest.approx(np.mean(scores))
        assert cell["macro_f1"]["sd"] == pytest.approx(np.std(scores, ddof=1))
    text = (out / "matrix.md").read_text()
    assert "| Macro-F1 | first | second |" in text
    assert (out / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert run(["matrix", str(file), "--out", str(out)]) == 0
    assert "| second |" in capsys.readouterr().out
    asked = (out / "request.json").read_bytes()
    file.write_text(MATRIX.replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    assert run(["matrix", str(file), "--out", str(out)]) == 2
    assert "before matrix got other settings (seeds)" in " ".join(capsys.readouterr().err.split())
    file.write_text(MATRIX.replace("seed = 7", "seed = 7\ntrain = { epochs = 3 }"))
    assert run(["matrix", str(file), "--out", str(out), "--replace"]) == 2
    assert "before matrix got other settings (trainings of sources)" in " ".join(capsys.readouterr().err.split())
    assert (out / "request.json").read_bytes() == asked
    assert run(["sweep", "ablation", "--out", str(out)]) == 2
    assert run(["study", "quickstart", "--out", str(out)]) == 2
    assert "holds the matrix 'small', not the study" in " ".join(capsys.readouterr().err.split())


def test_the_interval_covers_images_and_seeds():
    """On simulated seeds and images the interval holds the truth as often as it should, whichever varies more."""
    rng, n, repeats = np.random.default_rng(0), 400, 1000
    for seeds, luck in ((3, 0.1), (3, 0.7), (2, 0.7)):
        inside = 0
        for _ in range(repeats):
            ability = rng.normal(0, 0.9, n)  # of an image to be recognised, shared by the seeds
            hits = (ability + rng.normal(0, luck, (seeds, 1)) + rng.normal(0, 0.3, (seeds, n))) > 0
            values = hits.mean(1)
            half = 1.959964 * np.sqrt(values * (1 - values) / n)
            found = over_seeds(values.tolist(), np.stack([values - half, values + half], 1).tolist(), 0, 1)
            inside += found["ci95"][0] <= 0.5 <= found["ci95"][1]
        assert 0.92 <= inside / repeats <= 0.995, (seeds, luck)
    assert over_seeds([0.99, 1.0], [[0.98, 1.0], [0.99, 1.0]], 0, 1)["ci95"][1] == 1
    alone = over_seeds([0.5], [[0.4, 0.6]], 0, 1)
    assert alone["sd"] is None
    assert alone["ci95"] == pytest.approx([0.4, 0.6])
    assert over_seeds([0.02], [[0.0, 0.05]], 0, 1)["ci95"] == pytest.approx([0.0, 0.05])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "second"', 'name = "first"', "two sources have one name"),
        ("epochs = 2", "epoch = 4", "(?<!first: )train: .*Did you mean 'epochs'"),
        ("seed = 7", "trian = { epochs = 3 }", "source second: unknown key 'trian'. Did you mean 'train'"),
        ("seed = 7", "sead = 7", "Did you mean 'seed'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "named twice"),
        ("epochs = 2", "seed = 4", "`seeds` lists them"),
        ("seed = 7", "size = 48", "must look alike"),
        ("seed = 7", 'align = "eyes"', "must look alike"),
        ('color = "grey"', "", "must look alike"),
        ("seed = 7", "source = []", "which images"),
        ("resamples = 100", "corruptions = true", "belong to a study"),
        ('method = "temperature"', 'prior = "uniform"', "cannot be selected"),
        ('name = "second"', 'name = "The second"', "lower-case"),
        ("seed = 7", 'labels = "synthetic"', "at least two sources"),
        ("seed = 7", "train = true", "source second: train is a table"),
        ("seed = 7", "train = { seed = 4 }", "source second: train: seed is not a setting"),
        ("seed = 7", "train = { epoch = 4 }", "source second: train: .*Did you mean 'epochs'"),
    ],
)
def test_bad_matrices_are_refused(file, old, new, expected):
    text = MATRIX.replace(old, new)
    if new == "source = []":
        text = text.replace('source = ["synthetic=630"]\n', "")
    file.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_matrix(file)


def test_a_source_has_training_settings_of_its_own(file):
    file.write_text(MATRIX.replace("seed = 7", "seed = 7\ntrain = { epochs = 3, soft_votes = true }"))
    matrix = load_matrix(file)
    first, second = (matrix.training(source, 1) for source in matrix.sources)
    assert [(c.epochs, c.soft_votes, c.batch_size, c.seed) for c, _ in (first, second)] == [
        (2, False, 32, 1),
        (3, True, 32, 1),
    ]
    assert second[1]["epochs"]["from"] == "source"
    assert matrix.index_of(matrix.sources[1]).seed == 7
    trainings = steps(matrix, file.parent / "out")[1]
    assert set(trainings) == {(name, seed) for name in ("first", "second") for seed in (0, 1)}
    settings = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mien.stages.train.run", lambda config, *_, **__: settings.update({config.seed: config}))
        trainings["second", 0].run()
    assert settings[0].epochs == 3


def test_the_shipped_matrices_are_valid_and_found_by_name(tmp_path, capsys, monkeypatch):
    from mien.core.config.study import shipped_studies

    shipped = sorted((shipped_studies() / "matrices").glob("*.toml"))
    assert {"labels", "union"} <= {path.stem for path in shipped}
    for path in shipped:
        matrix = load_matrix(path)
        assert matrix.description
        assert matrix.cost
    monkeypatch.delenv("MIEN_DATA", raising=False)
    assert run(["matrix", "labels", "--out", str(tmp_path / "o")]) == 2
    assert "MIEN_DATA" in capsys.readouterr().err
    assert run(["matrix", "lables", "--out", str(tmp_path / "o")]) == 2
    assert "No matrix lables. Did you mean 'labels'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o").exists()


def test_two_label_columns_of_the_same_images(tmp_path):
    """Two tables label one folder; the second drops and relabels some images, so that the cap would differ."""
    rng, rows = np.random.default_rng(0), {"a": ["path,label"], "b": ["path,label"]}
    truth = {}
    for i in range(280):
        layouts.save(tmp_path / "faces" / f"{i}.png", layouts.face(i, 32))
        first, second = LABELS[i % 7], LABELS[(i + (rng.random() < 0.3)) % 7]
        rows["a"].append(f"faces/{i}.png,{first}")
        if rng.random() < 0.8:
            rows["b"].append(f"faces/{i}.png,{second}")
            truth[f"{i}.png"] = {"a": first, "b": second}
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    config = IndexConfig(
        source=tuple(f"csv@{n}={tmp_path / n}.csv" for n in "ab"), size=32, priority=("a",), max_train=120
    )
    stage.run(config, tmp_path / "all")
    found = {name: stage.under(name, tmp_path / "all", tmp_path / name) for name in "ab"}
    a, b = found["a"], found["b"]
    assert (a.image_ids == b.image_ids).all()
    assert (a.splits == b.splits).all()
    assert (np.asarray(a.pixels[:]) == np.asarray(b.pixels[:])).all()
    assert 0.1 < (a.labels != b.labels).mean() < 0.5
    whole = read_index(tmp_path / "all")
    expected = [i for i, path in enumerate(whole.table["path"].to_pylist()) if Path(path).name in truth]
    assert a.image_ids.tolist() == whole.image_ids[expected].tolist()
    for name, index in found.items():
        paths, labels = index.table["path"].to_pylist(), index.table["label"].to_pylist()
        assert labels == [truth[Path(path).name][name] for path in paths]
    again = (tmp_path / "b" / "manifest.json").stat().st_mtime_ns
    stage.under("b", tmp_path / "all", tmp_path / "b")
    with pytest.raises(ArtifactError, match="was cut out of another index"):
        stage.audit(tmp_path / "b")
    assert (tmp_path / "b" / "manifest.json").stat().st_mtime_ns == again
    with pytest.raises(UsageError, match="no source of the index"):
        stage.under("c", tmp_path / "all", tmp_path / "c")


@pytest.mark.trains
def test_a_run_that_diverges_is_left_out_and_named(file, tmp_path, capsys, monkeypatch):
    from mien.core.errors import TrainingDiverged
    from mien.stages import train

    whole = train.run

    def diverges(config, origin, index, out, **options):
        if "first_seed-1" in str(out) or "all" in str(out):
            raise TrainingDiverged("The loss is not finite at step 3.")
        return whole(config, origin, index, out, **options)

    monkeypatch.setattr(train, "run", diverges)
    assert run(["matrix", str(file), "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(o["source"], o["seed"]) for o in told["without_result"]] == [("first", 1)]
    assert {c["train"]: len(c["runs"]) for c in told["cells"]} == {"first": 1, "second": 2}
    assert told["cells"][0]["macro_f1"]["sd"] is None
    assert "first, seed 1, has no result: The loss" in (tmp_path / "out" / "matrix.md").read_text()
    assert run(["matrix", str(file), "--out", str(tmp_path / "all")]) == 1
    assert "No run on first has a result" in " ".join(capsys.readouterr().err.split())
