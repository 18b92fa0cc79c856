"""The scoring of the comparison with other packages, and its protocol, without any of them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mien.core.errors import ArtifactError, InputError, MienError, SplitError
from mien.core.labels import FERPLUS, INDEX, LABELS
from mien.evaluate.corruptions import CORRUPTIONS, corrupt
from unit.data.test_sources import pixels, write_fer2013

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import peer_worker
import peers

BENCHMARKS = Path(peers.__file__).parent


def crafted(n=210):
    rng = np.random.default_rng(3)
    labels = np.arange(n) % 7
    p = rng.dirichlet(np.full(7, 0.5), n)
    p[np.arange(n), labels] += 0.5
    return p / p.sum(1, keepdims=True), labels


def test_figures_are_scikit_learns_on_each_set():
    p, labels = crafted()
    names = [str(i) for i in range(len(labels))]
    copies = {str(i): ("identical", "near", "none")[i % 3] for i in range(90)}
    sets = peers.subsets(labels, names, copies)
    relabelled = (np.arange(0, 210, 2), (labels[::2] + 1) % 7)
    found = peers.score(5 * p, sets | {"ferplus": relabelled}, resamples=50)
    assert {name: one["n"] for name, one in found.items()} == {
        "all": 210,
        "copy identical": 30,
        "copy near": 30,
        "copy none": 150,
        "ferplus": 105,
    }
    rows = {"all": np.arange(210), "copy identical": np.arange(0, 90, 3), "copy none": np.r_[2:90:3, 90:210]}
    for name, kept in rows.items():
        predicted = p[kept].argmax(1)
        assert found[name]["accuracy"] == pytest.approx(accuracy_score(labels[kept], predicted))
        assert found[name]["macro_f1"] == pytest.approx(f1_score(labels[kept], predicted, average="macro"))
        low, high = found[name]["ci95"]["accuracy"]
        assert low <= found[name]["accuracy"] <= high
    assert found["ferplus"]["accuracy"] == pytest.approx(accuracy_score(relabelled[1], p[::2].argmax(1)))
    confidence, hit = p.max(1), p.argmax(1) == labels
    bins = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(abs(confidence[bins == b].sum() - hit[bins == b].sum()) for b in range(15)) / 210
    assert found["all"]["ece"] == pytest.approx(ece, abs=1e-9)


def test_labels_alone_have_no_calibration_error():
    p, labels = crafted()
    found = peers.score(p, peers.subsets(labels, [""] * 210, {}), calibrated=False, resamples=20)["all"]
    assert set(found) == {"n", "accuracy", "macro_f1", "ci95"}
    assert set(found["ci95"]) == {"accuracy", "macro_f1"}


def test_fer2013s_classes_come_into_our_order():
    found = np.array(peer_worker.FER2013)[peer_worker.TO_OURS]
    assert tuple(found) == LABELS == peer_worker.CLASSES


def test_rows_of_a_split_and_their_ferplus_labels(tmp_path):
    texts = [pixels() for _ in range(6)]
    usages = ["Training", "PublicTest", "PublicTest", "PublicTest", "PrivateTest", "PublicTest"]
    table = write_fer2013(
        tmp_path / "fer2013.csv", [(i % 7, t, u) for i, (t, u) in enumerate(zip(texts, usages, strict=True))]
    )
    faces, labels = peers.faces_of(table, "val")
    assert faces.shape == (4, 48, 48)
    assert (faces[0].ravel() == np.array(texts[1].split(), dtype=np.uint8)).all()
    # FER2013's numbers: 1 disgust, 2 fear, 3 happy, 5 surprise
    assert labels.tolist() == [INDEX[name] for name in ("disgust", "fear", "happy", "surprise")]
    names = [peers.name_of(face) for face in faces]
    root = tmp_path / "ferplus"
    root.mkdir()
    shutil.copy(table, root / "fer2013.csv")
    votes = {name: dict.fromkeys(FERPLUS, 0) for name in ("fear", "none", "contempt")}
    votes["fear"]["fear"] = 10
    votes["none"] |= {"fear": 5, "happiness": 5}
    votes["contempt"]["contempt"] = 10
    kinds = ["fear", "fear", "none", "contempt", "fear", "fear"]
    head = ",".join(["Usage", "Image name", *FERPLUS])
    lines = [
        ",".join([u, f"{i}.png", *map(str, votes[k].values())])
        for i, (u, k) in enumerate(zip(usages, kinds, strict=True))
    ]
    (root / "fer2013new.csv").write_text("\n".join([head, *lines]) + "\n")
    rows, relabelled = peers.ferplus_rows(root, "val", names)
    assert rows.tolist() == [0, 3]
    assert relabelled.tolist() == [INDEX["fear"]] * 2
    with pytest.raises(InputError, match=r"lacks"):
        peers.ferplus_rows(root, "val", names[:1])


STUB = """
import sys, time
sys.path.insert(0, {folder!r})
import peer_worker
from pathlib import Path
def maker(file):
    def recognise(face):
        if face[0, 0] == 255:
            raise ValueError("a face that it cannot take")
        print("what packages say")
        return [0.1] * 6 + [0.4 + face[0, 0]]
    return recognise, Path({folder!r}) / "peers.py", "numpy"
peer_worker.MAKERS["stub"] = maker
peer_worker.main()
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Starts a stand-in for a package in a process of its own, on faces of these first pixels."""

    def start(values):
        (tmp_path / "peer_worker.py").write_text(STUB.format(folder=str(BENCHMARKS)))
        monkeypatch.setattr(peers, "HERE", tmp_path)
        faces = np.zeros((len(values), 48, 48), np.uint8)
        faces[:, 0, 0] = values
        np.savez(tmp_path / "faces.npz", faces=faces)
        return peers.Worker(Path(sys.executable), "stub", "stub", tmp_path, tmp_path / "none")

    return start


def test_workers_take_turns_over_all_faces(worker):
    values = list(range(120))
    first = worker(values)
    first.wait()
    peers.in_turns([first], 0, 100)
    peers.in_turns([first], 100, 120)
    found = first.finish()
    np.testing.assert_allclose(found["probabilities"][:, 6], 0.4 + np.arange(120))
    assert (found["times"] > 0).all()
    sets = peers.subsets(np.full(120, 6), [""] * 120, {})
    assert peers.summary(found, "stub", sets, 120)["sets"]["all"]["accuracy"] == 1
    assert int(found["bytes"]) == (BENCHMARKS / "peers.py").stat().st_size


def test_corrupted_faces_follow_kind_by_kind():
    faces = np.random.default_rng(0).integers(0, 256, (4, 48, 48), dtype=np.uint8)
    shown = peers.corrupted(faces, np.array([2, 0])).reshape(len(CORRUPTIONS), 2, 48, 48)
    for kind, found in zip(CORRUPTIONS, shown, strict=True):
        np.testing.assert_array_equal(found, corrupt(faces[[2, 0], ..., None], kind, 3)[..., 0])


def test_a_package_that_fails_is_named_with_what_it_said(worker):
    broken = worker([0] * 60 + [255])
    broken.wait()
    with pytest.raises(MienError, match="stub ended: ValueError: a face that it cannot take"):
        peers.in_turns([broken], 0, 61)
    broken.close()


def test_test_is_closed_to_models_that_were_not_judged(monkeypatch):
    """By weights: a model file names those that it was made of, an evaluated run its own."""

    def open_session(path, threads):
        """`a-half.onnx` was made of the weights `a`, by rounding."""
        name, _, rounded = path.stem.partition("-")
        return None, SimpleNamespace(weights_hash=path.stem, quantized_from=name if rounded else None)

    monkeypatch.setattr(peers, "open_session", open_session)
    monkeypatch.setattr(peers, "read_run", lambda run: SimpleNamespace(weights_hash=run.name))
    monkeypatch.setattr(peers, "read_evaluation", lambda run: {"test": {}})
    with pytest.raises(SplitError, match="mien evaluate"):
        peers.check_opened([Path("a.onnx")], [])
    with pytest.raises(SplitError, match=r"b\.onnx"):
        peers.check_opened([Path("a.onnx"), Path("b.onnx")], [Path("runs/a")])
    peers.check_opened([Path("a.onnx"), Path("a-half.onnx")], [Path("runs/a")])
    with pytest.raises(SplitError, match=r"b-half\.onnx"):
        peers.check_opened([Path("b-half.onnx")], [Path("runs/a")])
    peers.check_opened([], [])

    def unread(run):
        raise ArtifactError(f"No evaluation at {run}.")

    monkeypatch.setattr(peers, "read_evaluation", unread)
    with pytest.raises(ArtifactError):
        peers.check_opened([Path("a.onnx")], [Path("runs/a")])
