"""What a sweep, matrix or study would do, asked of the stages; and the question before trainings are removed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mien.cli import run
from mien.core import progress
from mien.core.artifacts import base, checkpoint
from mien.core.artifacts.plan import about_to_make, ask
from mien.core.artifacts.run import write_metrics
from mien.core.config.matrix import load_matrix
from mien.core.config.sweep import load_sweep
from mien.core.errors import UsageError
from mien.nn.training.trainer import Trainer
from mien.stages import sweep_summary
from mien.study import matrix, plan, sweep
from mien.study.plan import Step, lost_trainings, outlook

SWEEP = """
name = "small"
baseline = "plain"
seeds = [0, 1]
[index]
source = ["synthetic=560"]
size = 32
[base]
backbone = "cnn"
batch_size = 32
[[variants]]
name = "plain"
head = "linear"
[[variants]]
name = "margin"
margin = 0.5
"""
MATRIX = """
name = "small"
seeds = [0]
[index]
size = 32
color = "grey"
[[sources]]
name = "first"
source = ["synthetic=560"]
[[sources]]
name = "second"
source = ["synthetic=560"]
near_radius = 5
[train]
backbone = "cnn"
"""


def at_once(self):
    """Instead of a training: what it leaves."""
    checkpoint.save_weights(self.out, self.network.state_dict())
    write_metrics(self.out, [])
    return {"best_epoch": 1, "best_val_macro_f1": 0.5, "steps": 1, "events": []}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "sweep.toml").write_text(SWEEP)
    return tmp_path / "sweep.toml"


@pytest.fixture
def finished(file, small_index, tmp_path, monkeypatch):
    """The folder of a sweep whose four trainings are finished."""
    monkeypatch.setattr(Trainer, "run", at_once)
    monkeypatch.setattr(sweep_summary, "run", lambda *_: {"variants": []})
    monkeypatch.setattr("mien.stages.sweep_summary.table", lambda _: "")
    root = tmp_path / "out"
    root.mkdir()
    base.write_json(root / "request.json", {"name": "small", "sweep": {}})
    (root / "index").symlink_to(small_index)
    sweep.run_sweep(load_sweep(file), root, SWEEP, replace=True)
    return root


def edited(file, old, new):
    assert old in SWEEP
    file.write_text(SWEEP.replace(old, new))
    return load_sweep(file)


def contents(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_stage_that_is_asked_says_what_it_would_do_and_does_nothing(tmp_path):
    done, begun, other, free = (tmp_path / name for name in ("done", "begun", "other", "free"))
    base.claim(begun, kind="run", fingerprint="mark")
    other.mkdir()
    (other / "x").touch()

    def stage(out):
        about_to_make(out, "mark")
        (out / "made").touch()

    assert ask(lambda: None) == "there"
    assert [ask(lambda f=folder: stage(f)) for folder in (begun, other, free)] == [
        "goes on",
        "made again",
        "to be made",
    ]
    assert not list(tmp_path.rglob("made"))
    done.mkdir()
    stage(done)
    assert (done / "made").is_file()


@pytest.mark.parametrize(
    "old, new, lost",
    [
        ("size = 32", "size = 32", []),
        ('head = "linear"', 'head = "linear"\nlr = 0.1', ["plain/seed-0", "plain/seed-1"]),
        ("margin = 0.5", "margin = 0.5\nsave_every_steps = 7", []),
        ("seeds = [0, 1]", "seeds = [1, 2]", []),
        ("size = 32", "size = 40", ["margin/seed-0", "margin/seed-1", "plain/seed-0", "plain/seed-1"]),
    ],
)
def test_trainings_that_changed_settings_would_remove(finished, file, old, new, lost):
    before = contents(finished)
    steps = sweep.all_steps(edited(file, old, new), finished)
    found = lost_trainings(steps)
    assert sorted(str(path.relative_to(finished / "runs")) for path in found) == lost
    states = outlook(steps)
    assert [name for name, state in states.items() if state == "made again" and name != "index"] == [
        f"train {path.parent.name} {path.name.removeprefix('seed-')}" for path in found
    ]
    assert (states["index"] == "made again") == (new == "size = 40")
    assert contents(finished) == before


def test_a_training_that_is_begun_goes_on_and_counts_once_it_saved(finished, file):
    runs = finished / "runs" / "plain"
    for seed in (0, 1):
        mark = base.read_json(runs / f"seed-{seed}" / "manifest.json", kind="manifest")["fingerprint"]
        (runs / f"seed-{seed}" / "manifest.json").unlink()
        base.write_json(runs / f"seed-{seed}" / "started.json", {"kind": "run", "fingerprint": mark})
    (runs / "seed-1" / "last").mkdir()
    (runs / "seed-1" / "last" / "state.json").write_text("{}")
    going_on = outlook(sweep.all_steps(load_sweep(file), finished))
    assert [s for n, s in going_on.items() if "plain" in n] == ["goes on"] * 2
    other = edited(file, 'head = "linear"', 'head = "linear"\nlr = 0.1')
    assert lost_trainings(sweep.all_steps(other, finished)) == [runs / "seed-1"]


def test_a_sweep_removes_no_training_unasked(finished, file, capsys):
    before = contents(finished)
    edited(file, 'head = "linear"', 'head = "linear"\nlr = 0.1')
    command = ["sweep", str(file), "--out", str(finished)]
    assert run(command) == 2
    told = " ".join(capsys.readouterr().err.split())
    for words in (
        f"2 trainings of other settings or images would be removed: {finished / 'runs' / 'plain' / 'seed-0'}",
        "--replace",
    ):
        assert words in told
    assert contents(finished) == before
    assert run([*command, "--replace"]) == 0
    after = contents(finished)
    assert after.keys() == before.keys()
    assert {
        path.parent.parent.name for path in before if before[path] != after[path] and path.name == "config.json"
    } == {"plain"}
    assert run(command) == 0  # nothing is lost now


@pytest.mark.parametrize("answer", ["y\n", "n\n", ""])
def test_on_a_terminal_the_question_is_put(finished, file, monkeypatch, capsys, answer):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    asked = []
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr(progress.console, "_force_terminal", True)
    monkeypatch.setattr(plan, "confirm", lambda question: asked.append(question) or progress.confirm(question))
    edited(file, 'head = "linear"', 'head = "linear"\nlr = 0.1')
    before = contents(finished)
    assert run(["sweep", str(file), "--out", str(finished)]) == (0 if answer == "y\n" else 2)
    assert len(asked) == 1
    assert "2 trainings would be removed and made again" in asked[0]
    assert (contents(finished) == before) == (answer != "y\n")


def test_images_that_changed_without_a_setting_are_noticed_at_the_training(finished, file, monkeypatch):
    """The plan saw nothing; the index that is then there is another one."""
    monkeypatch.setattr(plan, "lost_trainings", lambda steps: [] if len(steps) > 1 else lost_trainings(steps))
    before = contents(finished / "runs")
    with pytest.raises(UsageError, match=r"1 training of other settings or images would be removed: .*seed-0"):
        sweep.run_sweep(edited(file, 'head = "linear"', 'head = "linear"\nlr = 0.1'), finished, SWEEP)
    assert contents(finished / "runs") == before


def test_two_sweeps_of_one_folder_do_not_meet(finished, file, monkeypatch):
    before, same = contents(finished), load_sweep(file)
    changed = edited(file, 'head = "linear"', 'head = "linear"\nlr = 0.1')

    def second(*_):
        """What another process would do while the first one trains."""
        with pytest.raises(UsageError, match="Another process is writing"):
            sweep.run_sweep(changed, finished, SWEEP, replace=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "train_side_by_side", second)
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(same, finished, SWEEP)
    assert contents(finished) == before


def test_two_matrices_of_one_folder_do_not_meet(small_index, tmp_path, monkeypatch):
    (tmp_path / "m.toml").write_text(MATRIX)
    asked, root, seen = load_matrix(tmp_path / "m.toml"), tmp_path / "out", []

    def second(*_):
        with pytest.raises(UsageError, match="Another process is writing"):
            matrix.run_matrix(asked, root, MATRIX, replace=True)
        seen.append(root)
        raise KeyboardInterrupt

    monkeypatch.setattr(matrix, "steps", lambda *_: ([], {}))
    monkeypatch.setattr(matrix, "train_side_by_side", second)
    with pytest.raises(KeyboardInterrupt):
        matrix.run_matrix(asked, root, MATRIX)
    assert seen == [root]


def test_a_matrix_asks_too(small_index, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "run", at_once)
    root = tmp_path / "out"
    (root / "indexes").mkdir(parents=True)
    base.write_json(root / "request.json", {"name": "small", "matrix": {}})
    (tmp_path / "m.toml").write_text(MATRIX)
    before = load_matrix(tmp_path / "m.toml")
    (root / "indexes" / "first").symlink_to(small_index)
    matrix.steps(before, root)[1]["first", 0].run()
    (tmp_path / "m.toml").write_text(MATRIX + "epochs = 3\n")
    with pytest.raises(
        UsageError, match=r"1 training of other settings or images would be removed: .*first_seed-0.*--replace"
    ):
        matrix.run_matrix(load_matrix(tmp_path / "m.toml"), root, "")
    assert not (root / "indexes" / "second").exists()


def test_only_what_must_change_counts_as_lost(tmp_path):
    """Teachers a and b, joined, and a student: which trainings go when single steps are outdated."""

    def chain(*outdated):
        def step(name, needs, **options):
            product = tmp_path / name
            product.mkdir(exist_ok=True)
            (product / "manifest.json").touch()
            run = (lambda: about_to_make(product)) if name in outdated else (lambda: None)
            return Step(name, product, run, needs, **options)

        return [
            step("index", ()),
            *(step(n, ("index",), training=tmp_path / n) for n in "ab"),
            *(step(f"judge {n}", (n,), judges=True) for n in "ab"),
            step("join", ("judge a", "judge b"), judges=True),
            step("student", ("join",), training=tmp_path / "student"),
            step("test", ("join", "student"), judges=True),
        ]

    def names(*outdated):
        return [Path(folder).name for folder in lost_trainings(chain(*outdated))]

    assert names() == names("test") == names("join") == names("judge a") == []
    assert names("b") == ["b", "student"]
    assert names("index") == ["a", "b", "student"]
    assert names("student") == ["student"]
    states = outlook(chain("judge a"))
    assert [name for name, state in states.items() if state == "made again"] == ["judge a", "join", "student", "test"]
