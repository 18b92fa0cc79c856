"""The command line: each stage alone, clear errors, exit codes, and JSON alone on stdout."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import faces
from mien.cli import run
from mien.core.artifacts.framelog import read_frame_log
from mien.core.artifacts.index import read_index
from mien.core.labels import LABELS
from mien.evaluate.corruptions import CORRUPTIONS
from mien.synthetic import draw_face


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = run([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.trains
def test_every_stage_by_hand(tmp_path, capsys):
    """The way of the README, a command at a time, with --json throughout."""
    i, a, b, e, s = (tmp_path / name for name in ("index", "a", "b", "ens", "student"))
    small = ["--backbone", "cnn", "--epochs", "4", "--batch-size", "32"]
    commands = [
        ["index", "build", "--source", "synthetic=840", "--size", "32", "--out", i],
        ["index", "audit", i],
        ["train", "--index", i, "--out", a, *small],
        ["train", "--index", i, "--out", b, *small, "--head", "linear", "--seed", "1"],
        *[["predict", r, "--index", i, "--split", s] for r in (a, b) for s in ("val", "calib")],
        ["calibrate", a],
        ["calibrate", b],
        ["ensemble", a, b, "--out", e, "--resamples", "100"],
        ["distill", "--teacher", e, "--index", i, "--out", s, *small],
        *[["predict", s, "--index", i, "--split", split] for split in ("val", "calib")],
        ["calibrate", s],
        ["evaluate", e, "--index", i, "--resamples", "100"],
        ["evaluate", a, "--index", i, "--resamples", "100"],
        ["evaluate", s, "--index", i, "--resamples", "100"],
        ["export", s, "--index", i, "--out", tmp_path / "m.onnx"],
    ]
    for command in commands:
        code, out, err = call(capsys, *command, "--json")
        assert code == 0, (command, err)
        assert isinstance(json.loads(out), dict), command
    code, out, _ = call(capsys, "evaluate", e, "--index", i, "--resamples", "100")
    assert code == 0
    assert "macro_f1" in out


def test_a_run_elsewhere(small_study, tmp_path, capsys):
    """Corrupted test images, groups, and another index's test without what the run has seen."""
    out = tmp_path / "out"
    shutil.copytree(small_study, out)
    student, index = out / "student", out / "index"
    quick = ["--resamples", "100", "--json"]
    code, text, err = call(
        capsys, "evaluate", student, "--index", index, "--corruptions", "--corruption-pictures", "120", *quick
    )
    assert code == 0, err
    found = json.loads(text)
    assert set(found["corruptions"]) == set(CORRUPTIONS)
    for rows in found["corruptions"].values():
        assert [row["strength"] for row in rows] == [1, 2, 3, 4, 5]
        assert rows[4]["change"]["accuracy"]["value"] <= 0.05
    assert found["corruptions"]["noise"][4]["accuracy"] < found["test"]["accuracy"]
    few = ["--corruptions", "--corruption-pictures", "40"]
    code, text, err = call(capsys, "evaluate", out / "ensembles", "--index", index, *few, *quick)
    assert code == 0, err
    other = faces.index(tmp_path / "other", count=420, size=32, seed=5)
    code, text, err = call(capsys, "evaluate", student, "--index", index, "--on", other, *quick)
    assert code == 0, err
    there = json.loads(text)
    assert there["test"]["n"] + sum(there["left_out"].values()) == len(read_index(other).rows("test"))
    assert there["test"]["accuracy"] > 1 / 7
    again = call(capsys, "evaluate", student, "--index", index, "--on", other, *quick)
    assert json.loads(again[1]) == there
    larger = faces.index(tmp_path / "larger", count=280, size=40)
    code, _, err = call(capsys, "evaluate", student, "--index", index, "--on", larger)
    assert code == 2
    assert "learned other crops" in err
    assert f"--like {student}" in err
    assert call(capsys, "evaluate", student, "--on", other)[0] == 2


@pytest.fixture(scope="module")
def model(small_study):
    return small_study / "export" / "student.onnx"


def test_recognize_images(model, tmp_path, capsys):
    paths = []
    for k in range(2):
        paths.append(tmp_path / f"{k}.png")
        Image.fromarray(draw_face(0, k, 64).image).save(paths[-1])
    code, out, _ = call(capsys, "recognize", *paths, "--model", model, "--detector", "none", "--json")
    assert code == 0
    images = json.loads(out)["pictures"]
    assert [len(p["faces"]) for p in images] == [1, 1]
    assert set(images[0]["faces"][0]["probabilities"]) == set(LABELS)
    code, out, _ = call(capsys, "recognize", paths[0], "--model", model, "--detector", "none")
    assert code == 0
    assert "1 face" in out


def test_live_on_a_video(model, tmp_path, capsys):
    video, out_video, log = tmp_path / "in.mp4", tmp_path / "out.mp4", tmp_path / "frames.parquet"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 25, (128, 128))
    happy, sad = draw_face(0, 1, 128, label="happy").image, draw_face(0, 1, 128, label="sad").image
    for k in range(30):
        writer.write(cv2.cvtColor(happy if k < 15 else sad, cv2.COLOR_RGB2BGR))
    writer.release()
    code, out, err = call(
        capsys,
        "live",
        "--input",
        video,
        "--model",
        model,
        "--detector",
        "none",
        "--out",
        out_video,
        "--log",
        log,
        "--json",
    )
    assert code == 0, err
    done = json.loads(out)
    assert (done["frames"], done["frames_with_face"], done["identities"], done["dropped"]) == (30, 30, 1, 0)
    assert {"fps", "latency_ms", "flips_per_minute"} <= set(done)
    assert set(done["latency_ms"]) == {"decode", "detect", "crop", "recognize", "smooth", "draw", "total"}
    rows = read_frame_log(log).to_pylist()
    assert [r["frame"] for r in rows] == list(range(30))
    assert sum(rows[7][f"smooth_{name}"] for name in LABELS) == pytest.approx(1, abs=1e-5)
    capture = cv2.VideoCapture(str(out_video))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 30
    ok, frame = capture.read()
    assert ok
    assert np.abs(frame.astype(int) - cv2.cvtColor(happy, cv2.COLOR_RGB2BGR)).mean() > 1  # something was drawn
    code, out, _ = call(
        capsys, "live", "--input", video, "--model", model, "--detector", "none", "--max-frames", "5", "--json"
    )
    assert json.loads(out)["frames"] == 5


def test_index_as_text(small_index, capsys):
    code, out, _ = call(capsys, "index", "audit", small_index)
    assert code == 0
    assert "surprise" in out
    assert "total" in out
    assert call(capsys, "index", "sources")[0] == 0


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["train", "--index", "i", "--out", "r", "--bacth-size", "3"], "Did you mean --batch-size"),
        (["train", "--index", "i", "--out", "r", "--lr", "-1"], "--lr: Input should be greater than 0"),
        (["train", "--index", "i", "--out", "r", "--head", "cosine"], "arcface"),
        (["trian"], 'Did you mean "train"'),
        (["train", "--index", "nowhere", "--out", "r"], "No folder nowhere"),
        (["train", "--index", "{index}", "--out", "r", "--backbone", "resnt18"], "Did you mean 'resnet18'"),
        (["index", "build", "--out", "r"], "No source given"),
        (["index", "build", "--source", "fer2013=nowhere.csv", "--out", "r"], "No file nowhere.csv"),
        (["index", "build", "--source", "fer2013={notes}", "--out", "r"], "is not FER2013"),
        (
            ["index", "build", "--source", "fer2013=${{UNSET_PLACE}}/x.csv", "--out", "r"],
            "UNSET_PLACE, which is not set",
        ),
        (["study", "nowhere.toml", "--out", "r"], "No study"),
        (["study", "quickstrat", "--out", "r"], "Did you mean 'quickstart'"),
        (["study", "{faulty}", "--out", "r"], "Did you mean 'teachers'"),
        (["study", "{missing}", "--out", "r"], "No file nowhere.csv"),
        (["study", "{unknown}", "--out", "r"], "Did you mean 'resnet18"),
        (["live", "--input", "{video}", "--model", "{model}", "--out", "{video}"], "never written over itself"),
        (["predict", "{run}", "--index", "{index}", "--split", "test"], "evaluate` alone opens test"),
        (["predict", "{run}", "--index", "{index}", "--split", "tests"], "evaluate` alone opens test"),
        (["calibrate", "nowhere"], "No folder nowhere"),
        (["ensemble", "--out", "r"], "No run was named"),
        (["evaluate", "nowhere", "--index", "{index}"], "No folder nowhere"),
        (["export", "{run}", "--index", "{study}/index", "--out", "model.pt"], "ends in .onnx"),
        (["recognize", "nowhere.png", "--model", "{plain}"], "No file nowhere.png"),
        (["recognize", "{image}", "--model", "{plain}"], "mien export"),
        (["recognize", "{image}", "--model", "nowhere.onnx"], "No model file"),
        (["recognize", "{notes}", "--model", "{model}"], "unknown_format"),
        (["live", "--input", "nowhere.mp4", "--model", "{model}"], "No file nowhere.mp4"),
        (["live", "--input", "{notes}", "--model", "{model}"], "no video"),
        (["live", "--input", "{notes}", "--model", "{plain}"], "mien export"),
        (["live", "--input", "{video}", "--model", "{model}", "--out", "r.avi"], "ends in .mp4"),
        (["live", "--input", "{video}", "--model", "{model}", "--log", "r.csv"], "ends in .parquet"),
        (["train", "--index", "{index}", "--out", "r", "--seed", "99999999999999999999999"], "--seed"),
        (["index", "build", "--source", "synthetic=70", "--out", "r" * 300], "File name too long"),
        (["report", "nowhere"], "Run the study"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)
def test_clear_errors_and_nothing_left(
    arguments, expected, small_study, small_index, model, tmp_path, capsys, monkeypatch
):
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "plain.onnx"
    )
    Image.fromarray(draw_face(0, 0, 64).image).save(tmp_path / "image.png")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "faulty.toml").write_text("name='x'\ntechers=3\n[index]\nsource=['synthetic=70']\n")
    study_text = "name='x'\n[index]\nsource=['{}']\n[[teachers]]\nname='t'\nbackbone='{}'\n"
    (tmp_path / "missing.toml").write_text(study_text.format("fer2013=nowhere.csv", "cnn"))
    (tmp_path / "unknown.toml").write_text(study_text.format("synthetic=70", "resnet_18"))
    writer = cv2.VideoWriter(str(tmp_path / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 64))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    places = {
        "missing": tmp_path / "missing.toml",
        "unknown": tmp_path / "unknown.toml",
        "video": tmp_path / "video.mp4",
        "index": small_index,
        "study": small_study,
        "run": small_study / "teachers" / "arc",
        "model": model,
        "plain": tmp_path / "plain.onnx",
        "notes": tmp_path / "notes.csv",
        "image": tmp_path / "image.png",
        "faulty": tmp_path / "faulty.toml",
    }
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = call(capsys, *[a.format(**places) for a in arguments])
    assert code == 2, err
    assert expected in " ".join(err.split())
    assert out == ""
    assert "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_another_run_in_the_output_folder_is_kept(small_study, tmp_path, capsys):
    run_folder = tmp_path / "r"
    shutil.copytree(small_study / "teachers" / "arc", run_folder)
    code, _, err = call(capsys, "train", "--index", small_study / "index", "--out", run_folder, "--backbone", "cnn")
    assert code == 2
    assert "holds something else" in err
    assert (run_folder / "best.safetensors").is_file()


def test_a_full_disk_is_said(monkeypatch, tmp_path, capsys):
    import errno

    from mien.core.artifacts import base

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(base, "_flush_folder", full)
    code, _, err = call(capsys, "index", "build", "--source", "synthetic=140", "--size", "16", "--out", tmp_path / "i")
    assert code == 1
    assert "disk is full" in err
    assert not (tmp_path / "i").exists()


def test_interrupted_is_130(monkeypatch, capsys, tmp_path):
    from mien.stages import index

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(index, "run", stop)
    assert call(capsys, "index", "build", "--source", "synthetic=14", "--out", tmp_path / "i")[0] == 130


def test_version_and_help(capsys):
    import mien

    assert call(capsys, "--version")[1].strip() == mien.__version__
    for command in ([], ["train"], ["index", "build"], ["live"]):
        code, out, _ = call(capsys, *command, "--help")
        assert code == 0
        assert "Usage" in out


def test_only_trainings_run_under_a_launcher(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = call(capsys, "index", "build", "--source", "synthetic=14", "--out", tmp_path / "i")
    assert (code, out) == (2, "")
    assert "only `mien train`" in err
    assert not (tmp_path / "i").exists()


@pytest.mark.trains
def test_a_finished_training_tells_its_events(small_index, capsys, tmp_path, monkeypatch):
    import json

    import mien.stages.train as module

    scores = iter([0.5, 0.2, 0.1])
    monkeypatch.setattr(module, "score_logits", lambda z, y: {"macro_f1": next(scores), "accuracy": 0.5, "nll": 1.0})
    flags = (
        "--index",
        small_index,
        "--out",
        tmp_path / "r",
        "--backbone",
        "cnn",
        "--epochs",
        "3",
        "--no-eval-raw",
        "--batch-size",
        "32",
    )
    code, out, err = call(capsys, "train", *flags, "--json")
    assert code == 0
    (event,) = json.loads(out)["events"]
    assert event["kind"] == "collapse of val macro-F1"
    assert "fell from 0.500" in err
    code, out, _ = call(capsys, "train", *flags)
    assert "collapse of val macro-F1: val macro-F1 fell" in out
