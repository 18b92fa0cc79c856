"""The whole way on drawn faces: again, killed, refused, and with shuffled labels."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import documents, faces
from helpers.shared import once
from mien.cli import run
from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import read_run
from mien.core.artifacts.study import read_study
from mien.core.config.study import load_study
from mien.core.errors import SplitError, UsageError
from mien.study.runner import plan_study, run_study

TIMED = {"latency", "wall_s", "training"}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMED | {"environment", "sha256", "git"}}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def modified(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_the_teachers_learn_and_beat_chance(small_study):
    study = read_study(small_study)
    chance = study["baselines"]["test"]["chance"]["macro_f1"]
    for teacher in study["teachers"]:
        assert teacher["test"]["ci95"]["macro_f1"][0] > chance + 0.05
    assert study["student"]["test"]["ci95"]["macro_f1"][0] > chance


def test_the_report_has_every_table_filled(small_study):
    page = (small_study / "report" / "index.html").read_text()
    assert page.startswith("<!doctype html>")
    for words in (
        "Distinct images by class and split",
        "95 % bootstrap intervals",
        "Reliability before and after",
        "Training curves",
        "Per cent of each label",
        "Against the best single",
        "No access to test is on record from before this selection",
        "Student against teacher",
        "chance",
        "always ",
        "drawn by mien",
        "Every combination",
        "Corrupted test images, five strengths",
        "eyes covered",
    ):
        assert words in page, words
    assert "By now it was opened 7 times" in documents.html_text(small_study / "report" / "index.html")
    assert not documents.FORBIDDEN.findall(documents.html_text(small_study / "report" / "index.html"))
    assert page.count("data:image/svg+xml") >= 9


def test_a_study_ends_by_saying_whether_its_figures_are_expected(small_study, capsys):
    document = run_study(load_study(small_study.parent / "small.toml"), small_study)
    lines = " ".join(capsys.readouterr().err.split())
    accuracy = next(e for e in document["ensembles"] if e["name"] == document["selected"]["name"])["test"]["accuracy"]
    assert f"selected.accuracy {accuracy:.3f}: inside the expected 0.200 to 1.000" in lines
    assert "OUTSIDE the expected 2.000 to 3.000" in lines
    assert [row["inside"] for row in document["expected"]] == [True, False]


def test_the_report_claims_no_number_of_folds(small_study):
    """`calibration.json` does not keep `--folds`, so a page that names a number would only know the default."""
    page = documents.html_text(small_study / "report" / "index.html")
    assert not re.search(r"\b(two|three|four|five|ten|\d+) folds", page)


def test_a_report_of_its_ensembles_alone_says_the_same(small_study, tmp_path):
    shutil.copytree(small_study, tmp_path / "out")
    ensembles = tmp_path / "out" / "ensembles"
    assert run(["report", str(ensembles)]) == 0
    whole, alone = read_study(small_study), read_study(ensembles)
    for key in ("teachers", "ensembles", "selected", "baselines"):
        assert alone[key] == whole[key], key
    page = (ensembles / "report" / "index.html").read_text()
    assert "Corrupted test images" in page
    assert "Distinct images by class" not in page


def test_a_second_run_redoes_nothing(small_study, tmp_path):
    before = modified(small_study)
    started = time.perf_counter()
    run_study(load_study(faces.study_file(tmp_path / "small.toml")), small_study)
    after = modified(small_study)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"report/index.html", "request.json", "study.json"}
    assert time.perf_counter() - started < 60  # the report alone is written anew


@pytest.fixture(scope="module")
def smaller_study(tmp_path_factory):
    """A finished study of 700 drawn faces and two epochs, without corruptions; its file lies beside it."""
    made = once(tmp_path_factory, "smaller", lambda root: run_study(load_study(smaller_file(root)), root / "out"))
    return made / "out"


def smaller_file(folder: Path) -> Path:
    return faces.study_file(folder / "small.toml", count=700, epochs=2, corruptions=False)


@pytest.mark.trains
@pytest.mark.xdist_group("smaller_study")  # one worker makes it, and none waits
def test_changed_settings_redo_what_they_touch_and_no_more(smaller_study, tmp_path):
    root, file = tmp_path / "out", smaller_file(tmp_path)
    shutil.copytree(smaller_study, root)
    before = modified(root)
    text = file.read_text().replace('name = "plain"\nbackbone = "cnn"', 'name = "plain"\nlr = 2e-3\nbackbone = "cnn"')
    file.write_text(text)
    with pytest.raises(SplitError, match=r"before study got other settings \(teachers\)"):
        run_study(load_study(file), root)
    assert modified(root) == before  # told before anything is made again
    found = run_study(load_study(file), root, again=True, replace=True)
    plain = next(teacher for teacher in found["teachers"] if teacher["name"] == "plain")
    assert found["test_accesses"]["before_selection"] == plain["calibration"]["test_accesses"] == 7
    assert "Test was opened 7 times before this selection was written" in documents.html_text(
        root / "report" / "index.html"
    )
    after = modified(root)
    assert before["index/manifest.json"] == after["index/manifest.json"]
    assert before["teachers/arc/best.safetensors"] == after["teachers/arc/best.safetensors"]
    assert before["teachers/plain/best.safetensors"] != after["teachers/plain/best.safetensors"]
    assert before["ensembles/selected.json"] != after["ensembles/selected.json"]
    file.write_text(text.replace("[ensemble]\n", "[ensemble]\ncoverage = 0.8\n"))
    run_study(
        load_study(file), root, file.read_text(), again=True
    )  # the same ensemble is selected: no training is lost
    final = modified(root)
    assert final["student/best.safetensors"] == after["student/best.safetensors"]
    assert final["ensembles/selected.json"] != after["ensembles/selected.json"]
    assert (root / "study.toml").read_text() == file.read_text()


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.xdist_group("smaller_study")
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.long)])
def test_killed_at_several_moments_it_ends_with_the_same_numbers(smaller_study, tmp_path, kills):
    file, root = smaller_file(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "mien", "study", str(file), "--out", str(root), "--json"]
    rng, hits = np.random.default_rng(int(time.time())), 0
    for _ in range(12):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            before = files_in(root)
            while process.poll() is None and files_in(root) == before:  # until it is at work
                time.sleep(0.02)
            try:
                process.wait(timeout=float(rng.uniform(0, 5)))
                shutil.rmtree(root)  # it came to its end: begin anew
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        hits += process.returncode == -signal.SIGKILL
        if hits == kills:
            break
    assert hits == kills
    assert files_in(root)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert without_times(json.loads(done.stdout)) == without_times(read_study(smaller_study))


def files_in(root):
    """Paths of all files; those that vanish meanwhile are no error."""
    return {os.path.join(place, name) for place, _, names in os.walk(root) for name in names}  # noqa: PTH118


def test_a_dry_run_makes_nothing(tmp_path):
    study = load_study(faces.study_file(tmp_path / "s.toml"))
    plan = plan_study(study, tmp_path / "out")
    assert [s["step"] for s in plan][:2] == ["index", "train arc"]
    assert {s["state"] for s in plan} == {"to be made"}
    assert not (tmp_path / "out").exists()


AGAIN = {
    "predict plain val",
    "predict plain calib",
    "calibrate plain",
    "ensemble",
    "distill",
    "predict student val",
    "predict student calib",
    "calibrate student",
    "evaluate",
    "export",
    "report",
}


@pytest.mark.parametrize(
    "old, new, again",
    [
        ("[index]", "[index]", set()),
        ('name = "plain"', 'name = "plain"\nlr = 2e-3', AGAIN | {"train plain"}),
        (
            "[ensemble]",
            "[ensemble]\ncoverage = 0.8",
            AGAIN - {"predict plain val", "predict plain calib", "calibrate plain"},
        ),
        (
            "[student]",
            "[student]\nlr = 2e-3",
            AGAIN - {"predict plain val", "predict plain calib", "calibrate plain", "ensemble"},
        ),
        ("corruption_pictures = 60", "corruption_pictures = 50", {"evaluate", "report"}),
    ],
)
def test_a_dry_run_says_what_changed_settings_make_again(small_study, tmp_path, capsys, old, new, again):
    before, file = modified(small_study), faces.study_file(tmp_path / "small.toml")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert run(["study", str(file), "--out", str(small_study), "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    told = {s["step"]: s["state"] for s in json.loads(captured.out)["steps"]}
    assert {step for step, state in told.items() if state == "made again"} == again
    assert {state for step, state in told.items() if step not in again} == {"there"}
    assert not captured.err  # the stages were asked; they say nothing
    assert modified(small_study) == before


def test_an_outdated_index_makes_everything_again(small_study, tmp_path):
    file = faces.study_file(tmp_path / "small.toml")
    file.write_text(file.read_text().replace("size = 32", "size = 40"))
    assert {s["state"] for s in plan_study(load_study(file), small_study)} == {"made again"}


def test_a_study_removes_no_training_unasked(small_study, tmp_path, capsys):
    before, file = modified(small_study), faces.study_file(tmp_path / "small.toml")
    file.write_text(file.read_text().replace('name = "plain"', 'name = "plain"\nlr = 2e-3'))
    assert run(["study", str(file), "--out", str(small_study), "--again"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    lost = f"{small_study / 'teachers' / 'plain'}, {small_study / 'student'}."
    assert f"2 trainings of other settings or images would be removed: {lost}" in told
    assert "--replace" in told
    assert modified(small_study) == before


def test_a_study_has_a_folder_of_its_own(small_study, tmp_path):
    file = faces.study_file(tmp_path / "s.toml")
    file.write_text(file.read_text().replace('name = "small"', 'name = "other"'))
    with pytest.raises(UsageError, match="holds the study 'small'"):
        run_study(load_study(file), small_study)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="holds no study"):
        run_study(load_study(file), tmp_path / "mine")


@pytest.mark.trains
def test_training_on_shuffled_labels_falls_to_chance(small_study, tmp_path, monkeypatch):
    """Were there a leak from test into training, shuffled train and val labels could not hide it."""
    from mien.core.artifacts.index import Index
    from mien.core.config import TrainConfig, resolve
    from mien.nn.inference import load_network
    from mien.nn.predict import predict_logits
    from mien.stages import train

    folder = faces.index(tmp_path / "i", count=1400, size=32)
    index = read_index(folder)
    truth = index.labels.copy()
    shuffled = truth.copy()
    seen = np.flatnonzero(index.splits != "test")
    shuffled[seen] = np.random.default_rng(0).permutation(shuffled[seen])
    test = index.rows("test")

    monkeypatch.setattr(Index, "labels", shuffled)
    config, origin = resolve(
        TrainConfig, ("flag", {"backbone": "cnn", "batch_size": 32, "epochs": 8, "head": "linear"})
    )
    run = train.run(config, origin, folder, tmp_path / "shuffled")
    said = predict_logits(load_network(run), index.pixels, test).argmax(1)
    half_width = 1.96 * np.sqrt(1 / 7 * 6 / 7 / len(test))
    assert abs((said == truth[test]).mean() - 1 / 7) < 2 * half_width
    # The same network on true labels, in a study of as many faces, does learn.
    plain = next(teacher for teacher in read_study(small_study)["teachers"] if teacher["name"] == "plain")
    assert plain["test"]["accuracy"] > 1 / 7 + 4 * half_width


def test_the_student_is_smaller_or_equal_and_states_its_teacher(small_study):
    student = read_run(small_study / "student")
    study = read_study(small_study)
    assert student.config["teacher"]["name"] == study["selected"]["name"]
    assert student.config["teacher"]["selection_hash"] == study["selected"]["hash"]


def test_the_report_shows_peaks_and_what_went_wrong(small_study):
    from dataclasses import replace

    from mien.report import dynamics
    from mien.report.blocks import Table, Text, plain
    from mien.report.node import Node
    from mien.stages.report import _collect

    material = _collect(small_study)
    study = json.loads(json.dumps(material.study.value))
    event = {"kind": "collapse of val macro-F1", "step": 33, "epoch": 3, "text": "val macro-F1 fell"}
    study["teachers"][0]["training"]["events"] = [event]
    section = dynamics.section(replace(material, study=Node(study, "study.json")))
    peaks = next(b for b in section.blocks if isinstance(b, Table) and b.name == "peaks")
    for row in peaks.rows:
        cells = [plain(cell) for cell in row]
        history = material.histories[cells[0]].value
        scores = [line["val"]["macro_f1"] for line in history if "val" in line]
        assert float(cells[1]) == pytest.approx(max(scores), abs=5e-4)
        assert float(cells[4]) == pytest.approx(scores[-1], abs=5e-4)
        assert float(cells[6]) <= 1
    warnings = [plain(b.content) for b in section.blocks if isinstance(b, Text) and b.kind == "warning"]
    assert warnings == ["arc, collapse of val macro-F1: val macro-F1 fell. The best weights before were kept."]


def test_a_teacher_may_be_polished_from_the_one_before(tmp_path):
    from mien.core.config.study import load_study
    from mien.core.errors import ConfigError

    text = faces.study_file(tmp_path / "s.toml").read_text()
    two = text.replace('name = "plain"', 'name = "polished"\ninit_from = "arc"')
    (tmp_path / "s.toml").write_text(two)
    assert load_study(tmp_path / "s.toml").teachers[1].settings["init_from"] == "arc"
    (tmp_path / "s.toml").write_text(text.replace('name = "arc"', 'name = "arc"\ninit_from = "plain"'))
    with pytest.raises(ConfigError, match="must come before it"):
        load_study(tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("start", "hint"), [("plian", "Did you mean 'plain'"), ("out/nothing", "Teachers: arc, plain")]
)
def test_a_start_that_is_nowhere_is_refused_before_anything_is_made(tmp_path, start, hint):
    file = faces.study_file(tmp_path / "s.toml")
    file.write_text(file.read_text().replace("[student]", f'[student]\ninit_from = "{start}"'))
    with pytest.raises(UsageError, match=f"{start}.* names no teacher of the study(.|\n)*{hint}"):
        run_study(load_study(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_may_start_from_a_teacher(tmp_path, monkeypatch):
    from mien.core.config.study import load_study
    from mien.study.graph import steps

    text = faces.study_file(tmp_path / "s.toml").read_text()
    (tmp_path / "s.toml").write_text(text.replace("[student]", '[student]\ninit_from = "plain"'))
    started = []
    monkeypatch.setattr("mien.stages.distill.run", lambda config, *_, **__: started.append(config.init_from))
    (step,) = [s for s in steps(load_study(tmp_path / "s.toml"), tmp_path / "out") if s.name == "distill"]
    step.run()
    assert started == [str(tmp_path / "out" / "teachers" / "plain")]
