"""A sweep from its file to the comparison; interrupted and gone on with; bad files."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest

from mien.cli import run
from mien.core.artifacts.ensemble import read_selection
from mien.core.artifacts.index import read_index
from mien.core.artifacts.predictions import predictions_path, read_predictions
from mien.core.artifacts.run import read_run
from mien.core.config.sweep import load_sweep
from mien.core.errors import ConfigError
from mien.evaluate.bootstrap import resampled_many
from mien.evaluate.metrics import softmax

SWEEP = """
name = "small"
baseline = "plain"
seeds = [0, 1]
[index]
source = ["synthetic=420"]
size = 32
[base]
backbone = "cnn"
epochs = 4
batch_size = 32
plain_logits_epochs = 2
[[variants]]
name = "plain"
head = "linear"
[[variants]]
name = "margin"
margin = 0.5
[[variants]]
name = "slow"
head = "linear"
lr = 1e-4
min_lr = 0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP)
    return path


@pytest.mark.trains
def test_a_sweep_goes_on_and_compares(file, tmp_path, capsys, monkeypatch):
    from mien.stages import train

    whole, calls = train.run, []

    def stops(*arguments, **options):
        calls.append(arguments[3])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(train, "run", stops)
    out = tmp_path / "out"
    assert run(["sweep", str(file), "--out", str(out)]) == 130
    first = (out / "runs" / "plain" / "seed-0" / "best.safetensors").stat().st_mtime_ns
    assert [p.name for p in calls[:3]] == ["seed-0"] * 3  # whole blocks first
    capsys.readouterr()
    assert run(["sweep", str(file), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "sweep.json").read_text())
    assert (out / "runs" / "plain" / "seed-0" / "best.safetensors").stat().st_mtime_ns == first
    names = [v["name"] for v in told["variants"]]
    assert names == ["plain", "margin", "slow"]
    plain, margin, slow = told["variants"]
    scores = [[one["best"]["macro_f1"] for one in v["runs"]] for v in (plain, slow)]
    assert plain["difference"] is None
    assert slow["difference"]["mean"] == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    draws, index = [], read_index(out / "index")
    for name in ("plain", "slow"):
        several = [read_predictions(predictions_path(out / "runs" / name / f"seed-{s}", "val")) for s in (0, 1)]
        assert (several[0].groups == index.group_ids[index.rows("val")]).all()
        found = resampled_many([softmax(p.logits) for p in several], several[0].labels, full=False)
        draws.append(np.mean([f["macro_f1"] for f in found], axis=0))
    low, high = slow["difference"]["ci95"]
    assert (high - low) / 2 > 1.959 * np.std(draws[1] - draws[0])  # of the images alone; seeds come on top
    assert slow["val"]["macro_f1"]["sd"] == pytest.approx(np.std(scores[1], ddof=1))
    assert plain["runs"][0]["fall_after_margin"] is None
    curve = margin["runs"][0]["curve"]
    before, after = [f for _, f, m in curve if m == 0], [f for _, f, m in curve if m > 0]
    assert margin["runs"][0]["fall_after_margin"] == pytest.approx(max(before) - min(after))
    assert "| slow |" in (out / "sweep.md").read_text()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert run(["sweep", str(file), "--out", str(out)]) == 0
    assert "baseline" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('baseline = "plain"', 'baseline = "none"', "none of the variants"),
        ('name = "slow"', 'name = "margin"', "two variants have one name"),
        ("margin = 0.5", "margn = 0.5", "Did you mean 'margin'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "named twice"),
        ("seeds = [0, 1]", "seeds = [0]", "seeds"),
        ("epochs = 4", "seed = 4", "`seeds` lists them"),
        ('name = "slow"', 'name = "Slow one"', "lower-case"),
        ("epochs = 4", "min_lr = 3.0", "above lr"),
    ],
)
def test_bad_sweeps_are_refused(file, old, new, expected):
    file.write_text(SWEEP.replace(old, new))
    with pytest.raises(ConfigError, match=expected):
        load_sweep(file)


STUDENTS = """
name = "students"
baseline = "plain"
seeds = [0, 1]
teacher = "TEACHER"
[index]
SOURCE
[base]
backbone = "cnn"
epochs = 1
batch_size = 64
kd_views = 1
[[variants]]
name = "plain"
kd_weight = 0.0
[[variants]]
name = "taught"
kd_loss = "dkd"
"""


@pytest.mark.trains
def test_students_of_one_teacher_are_compared(small_study, tmp_path, capsys):
    index = tomllib.loads((small_study.parent / "small.toml").read_text())["index"]
    file, out = tmp_path / "students.toml", tmp_path / "out"
    settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in index.items())
    text = STUDENTS.replace("SOURCE", settings)
    file.write_text(text.replace("TEACHER", str(tmp_path / "none")))
    assert run(["sweep", str(file), "--out", str(out)]) == 2
    assert "mien ensemble" in capsys.readouterr().err
    file.write_text(text.replace("TEACHER", str(small_study / "ensembles")))
    assert run(["sweep", str(file), "--out", str(out), "--jobs", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [v["name"] for v in told["variants"]] == ["plain", "taught"]
    selected = read_selection(small_study / "ensembles" / "selected.json")
    taught = read_run(out / "runs" / "taught" / "seed-1")
    assert taught.config["teacher"]["name"] == selected["name"]
    assert taught.config["settings"]["kd_loss"]["value"] == "dkd"
    weights = [(out / "runs" / name / "seed-1" / "best.safetensors").read_bytes() for name in ("plain", "taught")]
    assert weights[0] != weights[1]
    assert run(["sweep", str(file), "--out", str(out)]) == 0
    assert "is taught already" in capsys.readouterr().err


def test_the_shipped_sweeps_are_valid_and_found_by_name(tmp_path, capsys, monkeypatch):
    from mien.core.config.study import shipped_studies

    shipped = sorted((shipped_studies() / "sweeps").glob("*.toml"))
    assert {"ablation"} <= {path.stem for path in shipped}
    for path in shipped:
        sweep = load_sweep(path)
        assert sweep.description
        assert sweep.cost
    monkeypatch.delenv("MIEN_DATA", raising=False)
    assert run(["sweep", "ablation", "--out", str(tmp_path / "o")]) == 2
    assert "MIEN_DATA" in capsys.readouterr().err
    assert run(["sweep", "ablatoin", "--out", str(tmp_path / "o")]) == 2
    assert "Did you mean 'ablation'" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.trains
def test_a_variant_that_diverges_is_listed_and_the_rest_compared(file, tmp_path, capsys):
    file.write_text(
        SWEEP.replace(
            "lr = 1e-4\nmin_lr = 0", 'lr = 1e30\nmin_lr = 0\noptimizer = "sgd"\nclip_grad = 0\nwarmup_epochs = 0'
        )
    )
    assert run(["sweep", str(file), "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [v["name"] for v in told["variants"]] == ["plain", "margin"]
    assert set(told["without_result"]["slow"]) == {"0", "1"}
    assert "slow has no result: " in (tmp_path / "out" / "sweep.md").read_text()


def test_a_sweeps_folder_is_its_own(file, tmp_path, small_study, capsys):
    assert run(["sweep", str(file), "--out", str(small_study)]) == 2
    assert "holds the study 'small', not the sweep 'small'" in " ".join(capsys.readouterr().err.split())
    file.write_text(SWEEP.replace("synthetic=420", f"folder={tmp_path / 'nowhere'}"))
    assert run(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.trains
def test_trainings_side_by_side_end_as_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP[: SWEEP.index('[[variants]]\nname = "slow"')].replace("epochs = 4", "epochs = 1"))
    for jobs in ("1", "3"):
        assert run(["sweep", str(file), "--out", str(tmp_path / jobs), "--jobs", jobs]) == 0
    weights = [sorted((tmp_path / jobs).rglob("best.safetensors")) for jobs in ("1", "3")]
    assert len(weights[0]) == len(weights[1]) == 4
    assert [path.read_bytes() for path in weights[0]] == [path.read_bytes() for path in weights[1]]
    assert len(list((tmp_path / "3" / "logs").glob("*.log"))) == 4
    assert not (tmp_path / "1" / "logs").exists()
