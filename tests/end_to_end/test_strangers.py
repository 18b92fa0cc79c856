"""A finished model on a stranger's photographs: a table, all test, five of the seven classes, in colour."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from helpers import layouts
from mien.cli import run
from mien.core.artifacts.ensemble import read_selection
from mien.core.artifacts.index import read_index
from mien.core.geometry import to_grey
from mien.core.labels import LABELS
from mien.synthetic import draw_face

CLASSES = ("angry", "happy", "neutral", "sad", "surprise")
QUICK = ("--resamples", "100", "--json")


@pytest.fixture(scope="module")
def strangers(small_study, tmp_path_factory):
    """The index of 60 tinted drawn faces that the study has not seen, made like its model."""
    folder = tmp_path_factory.mktemp("strangers")
    lines = ["path,label,split"]
    for number in range(60):
        label = CLASSES[number % 5]
        image = draw_face(77, number, 64, label=label).image
        grey = image if image.ndim == 2 else to_grey(image)[..., 0]
        tint = np.stack([grey, (grey * 0.8).astype(np.uint8), (grey * 0.6).astype(np.uint8)], axis=-1)
        layouts.save(folder / "images" / f"{number}.png", tint)
        lines.append(f"images/{number}.png,{label},test")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = small_study / "export" / "student.onnx"
    source = f"csv={folder / 'labels.csv'}"
    assert run(["index", "build", "--source", source, "--like", str(model), "--out", str(folder / "index")]) == 0
    assert set(read_index(folder / "index").splits) == {"test"}
    return folder / "index"


def judged(capsys, *command) -> dict:
    capsys.readouterr()
    assert run(["evaluate", *map(str, command), *QUICK]) == 0
    return json.loads(capsys.readouterr().out)


def by_hand(model, index) -> np.ndarray:
    """Labels that onnxruntime alone gives each packed image, one at a time."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    crops = [np.array(index.pixels[np.array([i])]) for i in range(len(index.table))]
    crops = [np.repeat(c, 3, axis=3) if c.shape[3] == 1 else c for c in crops]
    return np.array([session.run(["probabilities"], {"crops": c})[0][0].argmax() for c in crops])


def test_a_run_an_ensemble_and_a_model_file_are_judged_on_it(small_study, strangers, tmp_path, capsys):
    import shutil

    study = tmp_path / "study"
    shutil.copytree(small_study, study)
    model, own, index = study / "export" / "student.onnx", study / "index", read_index(strangers)
    right = by_hand(model, index) == index.labels
    found = judged(capsys, model, "--on", strangers)
    assert found["test"]["n"] == 60
    assert found["test"]["accuracy"] == pytest.approx(right.mean())
    assert found["test"]["confusion"][LABELS.index("fear")] == [0] * 7  # no such image
    assert "not known" in found["warnings"][0]
    with_index = judged(capsys, model, "--index", own, "--on", strangers)
    assert with_index["left_out"] == {"same": 0, "near": 0}
    assert not with_index["warnings"]
    student = judged(capsys, study / "student", "--index", own, "--on", strangers)
    assert student["test"]["accuracy"] == pytest.approx(right.mean(), abs=0.02)  # the same network in torch
    ensemble = judged(capsys, study / "ensembles", "--index", own, "--on", strangers)
    assert ensemble["name"] == read_selection(study / "ensembles" / "selected.json")["name"]
    assert ensemble["test"]["n"] == 60
    assert ensemble["test"]["accuracy"] > 0.3
    assert student["test_accesses"]["before"] >= 1  # the model file's access is on record beside the index


def test_what_the_model_has_seen_is_left_out(small_study, tmp_path, capsys):
    """The study's own train images as a stranger's test."""
    own = read_index(small_study / "index")
    rows, lines = own.rows("train")[:20], ["path,label,split"]
    for number, row in enumerate(rows):
        image = np.array(own.pixels[np.array([row])])[0]
        layouts.save(tmp_path / f"{number}.png", image[..., 0] if image.shape[2] == 1 else image)
        lines.append(f"{number}.png,{LABELS[own.labels[row]]},test")
    for number in range(20, 30):
        layouts.save(tmp_path / f"{number}.png", draw_face(78, number, 32, label="happy").image)
        lines.append(f"{number}.png,happy,test")
    (tmp_path / "l.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = small_study / "export" / "student.onnx"
    source = f"csv={tmp_path / 'l.csv'}"
    assert (
        run(
            [
                "index",
                "build",
                "--source",
                source,
                "--like",
                str(model),
                "--out",
                str(tmp_path / "i"),
                "--near-duplicates",
                "off",
            ]
        )
        == 0
    )
    copy = tmp_path / "m.onnx"
    copy.write_bytes(model.read_bytes())
    found = judged(capsys, copy, "--index", small_study / "index", "--on", tmp_path / "i")
    assert found["left_out"]["same"] == 20
    assert found["test"]["n"] == 10 - found["left_out"]["near"]


def test_what_cannot_be_judged_is_said(small_study, strangers, tmp_path, capsys):
    assert run(["evaluate", str(small_study / "student"), "--on", str(strangers)]) == 2
    assert "--index DIR" in " ".join(capsys.readouterr().err.split())
    source = f"csv={strangers.parent / 'labels.csv'}"
    assert run(["index", "build", "--source", source, "--size", "40", "--out", str(tmp_path / "i")]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(small_study / "export" / "student.onnx"), "--on", str(tmp_path / "i")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "size 32 and 40" in said
    assert "--like" in said


def test_a_model_file_is_judged_without_torch(small_study, strangers, tmp_path):
    copy = tmp_path / "m.onnx"
    copy.write_bytes((small_study / "export" / "student.onnx").read_bytes())
    code = (
        "import sys\nfrom mien.cli import run\n"
        f"code = run(['evaluate', {str(copy)!r}, '--on', {str(strangers)!r}, '--resamples', '100'])\n"
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
