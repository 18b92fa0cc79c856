"""`mien video` and `mien replay`: tables of many videos, resumed, replayed and scored."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from helpers.matroska import write_matroska
from helpers.models import colour_model
from mien.cli import run
from mien.core.artifacts import framelog, videos
from mien.core.config.live import VideoConfig
from mien.core.errors import InputError, UsageError
from mien.core.labels import LABELS
from mien.evaluate.intervals import Interval, score, switch_seconds, truth
from mien.runtime.readers import Frame
from mien.stages import live, replay
from mien.stages import video as stage

RED, GREEN = (250, 0, 0), (0, 250, 0)
PLAIN = {"detector": "none", "workers": 1}


@pytest.fixture
def model(tmp_path):
    return colour_model(tmp_path / "colour.onnx")


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def write(path, colours, *, step_ms=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.full((32, 32, 3), c, np.uint8) for c in colours]
    return write_matroska(path, frames, [step_ms * k for k in range(len(frames))])


@pytest.fixture
def folder(tmp_path):
    """Three videos, one below a folder, and one that is none."""
    place = tmp_path / "in"
    write(place / "a.mkv", [RED] * 30 + [GREEN] * 30)
    write(place / "b.mkv", [GREEN] * 25)
    write(place / "more" / "a.mkv", [RED] * 20, step_ms=100)
    (place / "broken.mp4").write_bytes(b"no video")
    return place


def test_many_videos_to_tables(folder, model, tmp_path):
    out = tmp_path / "out"
    done = stage.run([folder], model, VideoConfig(**PLAIN), out)
    assert (done["videos"], done["analysed"], done["frames"]) == (4, 4, 105)
    assert list(done["failed"]) == ["broken.mp4"]
    table = framelog.read_frame_log(out / "frames.parquet")
    rows = table.to_pylist()
    assert [r["video"] for r in rows] == ["a.mkv"] * 60 + ["b.mkv"] * 25 + ["broken.mp4"] + ["more/a.mkv"] * 20
    assert [r["status"] for r in rows if r["video"] == "broken.mp4"] == ["decode_error"]
    assert [r["time_s"] for r in rows[-20:]] == pytest.approx([k / 10 for k in range(20)])
    texts = rows_of(out / "frames.csv")
    for row, text in zip(rows, texts, strict=True):
        for name, value in row.items():
            if value is None:
                assert text[name] == "NA"
            elif isinstance(value, float):
                assert np.float32(text[name]) == pytest.approx(np.float32(value), rel=1e-6)
            else:
                assert text[name] == str(value)
    assert framelog.read_frame_log(out / "frames.csv").equals(table.replace_schema_metadata(None))
    for name, columns in (("frames", texts[0]), ("summary", rows_of(out / "summary.csv")[0])):
        described = [row["column"] for row in rows_of(out / f"{name}_dictionary.csv")]
        assert described == list(columns)
    summary = {row["video"]: row for row in rows_of(out / "summary.csv")}
    assert float(summary["b.mkv"]["share_sad"]) == 1
    assert "no video" in summary["broken.mp4"]["error"]
    own = videos.folder_of(out, "a.mkv")
    described = [row["column"] for row in rows_of(own / "frames_times_dictionary.csv")]
    assert described == pq.read_schema(own / "frames_times.parquet").names
    assert len(pq.read_table(own / "frames_times.parquet")) == 60
    image = np.asarray(Image.open(io.BytesIO((own / "timeline.png").read_bytes())))
    assert image.shape[1] == 1400


def test_the_tables_of_live_and_video_have_one_schema(folder, model, tmp_path):
    """The contract of DESIGN.md: the same columns, and for one source the same rows."""
    stage.run([folder / "a.mkv"], model, VideoConfig(**PLAIN), tmp_path / "out")
    settings = live.LiveConfig(detector="none")
    live.run(str(folder / "a.mkv"), model, settings, log=tmp_path / "live.parquet")
    one = pq.read_table(tmp_path / "live.parquet")
    other = pq.read_table(videos.folder_of(tmp_path / "out", "a.mkv") / "frames.parquet")
    assert one.schema == other.schema
    names = ["frame", "time_s", "status", "face_id", *"xywh"]
    names += [f"{kind}_{name}" for kind in ("raw", "smooth") for name in LABELS] + ["raw_label", "label"]
    assert one.schema.names == names
    for name in names:
        a, b = one[name].to_pylist(), other[name].to_pylist()
        assert a == (pytest.approx(b, abs=1e-5) if isinstance(b[0], float) else b)


@pytest.mark.parametrize("stop", [0, 7, 45, 60, 100])
def test_stopped_anywhere_it_goes_on_and_does_no_video_twice(folder, model, tmp_path, monkeypatch, stop):
    whole, out = tmp_path / "whole", tmp_path / "out"
    stage.run([folder], model, VideoConfig(**PLAIN), whole)

    class Killed(BaseException):
        pass

    taken, frame = [], stage.Session.frame

    def dies(self, given, **options):
        taken.append(given)
        if len(taken) == stop + 1:
            raise Killed
        frame(self, given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(stage.Session, "frame", dies)
        patch.setattr(videos.base.Path, "unlink", lambda *a, **k: None)  # as after SIGKILL, nothing is tidied
        with pytest.raises(Killed):
            stage.run([folder], model, VideoConfig(**PLAIN), out)
    done = {p: p.stat().st_mtime_ns for p in out.rglob("manifest.json")}
    again = stage.run([folder], model, VideoConfig(**PLAIN), out)
    assert again["analysed"] == 4 - len(done)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert (out / "frames.csv").read_bytes() == (whole / "frames.csv").read_bytes()
    assert pq.read_table(out / "frames.parquet").equals(pq.read_table(whole / "frames.parquet"))
    assert not list(out.rglob(".*tmp"))
    assert stage.run([folder], model, VideoConfig(**PLAIN), out)["analysed"] == 0


def test_other_settings_into_the_same_folder_are_refused(folder, model, tmp_path):
    stage.run([folder / "b.mkv"], model, VideoConfig(**PLAIN), tmp_path / "out")
    with pytest.raises(UsageError, match=r"made with dwell 0.25, now 0.9.*mien replay"):
        stage.run([folder / "b.mkv"], model, VideoConfig(**PLAIN, dwell=0.9), tmp_path / "out")


def test_the_tables_of_a_truncated_video_are_kept(folder, model, tmp_path, monkeypatch):
    """It has an error, and frames that took a long time to analyse: other settings do not remove them."""
    out, read = tmp_path / "out", stage.open_reader

    def truncated(source):
        frames = list(read(source))
        return [*frames, Frame(len(frames), 99.0, None, 0.0, "it is truncated")]

    monkeypatch.setattr(stage, "open_reader", truncated)
    done = stage.run([folder / "b.mkv"], model, VideoConfig(**PLAIN), out)
    assert done["failed"] == {"b.mkv": "it is truncated"}
    kept = (videos.folder_of(out, "b.mkv") / "frames.parquet").read_bytes()
    with pytest.raises(UsageError, match="made with dwell"):
        stage.run([folder / "b.mkv"], model, VideoConfig(**PLAIN, dwell=0.9), out)
    assert (videos.folder_of(out, "b.mkv") / "frames.parquet").read_bytes() == kept


def test_a_damaged_video_that_was_copied_again_is_done_and_a_changed_one_is_named(folder, model, tmp_path):
    """Nothing is lost with a damaged one's tables; those of a video that could be read are never removed unasked."""
    out = tmp_path / "out"
    stage.run([folder], model, VideoConfig(**PLAIN), out)
    row = {row["video"]: row for row in rows_of(out / "summary.csv")}["broken.mp4"]
    assert {row[f"share_{label}"] for label in LABELS} == {row["flips_raw"], row["seconds"]} == {"NA"}
    assert row["unreadable_frames"] == "1"
    shutil.copyfile(folder / "b.mkv", folder / "broken.mp4")
    done = stage.run([folder], model, VideoConfig(**PLAIN), out)
    assert (done["analysed"], done["failed"]) == (1, {})
    row = {row["video"]: row for row in rows_of(out / "summary.csv")}["broken.mp4"]
    assert float(row["share_sad"]) == 1
    shutil.copyfile(folder / "b.mkv", folder / "a.mkv")
    kept = (videos.folder_of(out, "a.mkv") / "frames.parquet").read_bytes()
    with pytest.raises(UsageError, match=r"another file than the one.*Remove that one folder"):
        stage.run([folder], model, VideoConfig(**PLAIN), out)
    assert (videos.folder_of(out, "a.mkv") / "frames.parquet").read_bytes() == kept


def test_what_is_no_video_folder_is_said(folder, model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No video in"):
        stage.find_videos([tmp_path / "empty"])
    with pytest.raises(InputError, match="No file or folder"):
        stage.find_videos([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="Two videos"):
        stage.find_videos([folder / "a.mkv", folder / "more" / "a.mkv"])
    arguments = [
        "video",
        str(folder),
        "--out",
        str(tmp_path / "o"),
        "--model",
        str(model),
        "--detector",
        "none",
        "--workers",
        "1",
    ]
    assert run([*arguments, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["videos"] == 4
    assert "1 of 4 videos" in " ".join(err.split())


@pytest.mark.slow
def test_workers_give_the_tables_of_one_process(folder, model, tmp_path):
    stage.run([folder], model, VideoConfig(**PLAIN), tmp_path / "one")
    stage.run([folder], model, VideoConfig(**PLAIN | {"workers": 2}), tmp_path / "two")
    assert (tmp_path / "one" / "frames.csv").read_bytes() == (tmp_path / "two" / "frames.csv").read_bytes()


def test_a_replay_with_the_same_rules_changes_nothing_and_with_others_what_they_say(folder, model, tmp_path):
    out = tmp_path / "out"
    stage.run([folder], model, VideoConfig(**PLAIN), out)
    before = pq.read_table(out / "frames.parquet")
    done = replay.run(out / "frames.parquet", {}, out=tmp_path / "same.parquet")
    after = pq.read_table(tmp_path / "same.parquet")
    assert after.schema == before.schema
    assert after["label"].to_pylist() == before["label"].to_pylist()
    assert after["status"].to_pylist() == before["status"].to_pylist()
    for name in LABELS:
        a, b = (t[f"smooth_{name}"].to_pylist() for t in (after, before))
        assert a == pytest.approx(b, abs=1e-5)
    assert done["flips_per_minute"]["before"] == done["flips_per_minute"]["smoothed"] > 0
    quick = replay.run(out / "frames.csv", {"filter": "none", "dwell": 0.0}, out=tmp_path / "quick.csv")
    assert quick["rules"]["dwell"] == 0
    labels = framelog.read_frame_log(tmp_path / "quick.csv")["label"].to_pylist()
    assert labels[:60] == ["happy"] * 30 + ["sad"] * 30
    assert before["label"].to_pylist()[30:34] == ["happy"] * 4


def test_a_replay_is_scored_against_marked_intervals(folder, model, tmp_path, capsys):
    stage.run([folder], model, VideoConfig(**PLAIN), tmp_path / "out")
    marked = tmp_path / "marked.csv"
    marked.write_text("video,start_s,end_s,label\na.mkv,0,1.2,happy\na.mkv,1.2,2.4,sad\n")
    table = str(tmp_path / "out" / "frames.parquet")
    assert run(["replay", table, "--intervals", str(marked), "--filter", "none", "--dwell", "0.2", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["raw"]["accuracy"] == 1
    assert scores["raw"]["median_seconds_to_switch"] == pytest.approx(0, abs=1e-6)
    # 0.2 s at 25 frames a second: five frames late.
    assert scores["smoothed"]["accuracy"] == pytest.approx(55 / 60)
    assert scores["smoothed"]["median_seconds_to_switch"] == pytest.approx(0.1)
    marked.write_text(
        "\ufeffvideo;start_s;end_s;label\na.mkv;0;1,2;happy\na.mkv;1,2;2,4;sad\n"
    )  # a German spreadsheet's
    same = replay.run(tmp_path / "out" / "frames.parquet", {"filter": "none", "dwell": 0.2}, intervals=marked)
    assert same["scores"] == scores
    for text, said in (
        ("start_s,end_s\n0,1\n", "needs start_s"),
        ("start_s,end_s,label\n0,1,glad\n", "'glad'"),
        ("start_s,end_s,label\n2,1,sad\n", "start_s < end_s"),
        ("start_s,end_s,label\n90,91,sad\n", "No row of a face"),
    ):
        marked.write_text(text)
        with pytest.raises(InputError, match=said):
            replay.run(tmp_path / "out" / "frames.parquet", {}, intervals=marked)


def test_scores_equal_scikit_learns():
    rng = np.random.default_rng(2)
    true, said = rng.integers(-1, 4, 300), rng.integers(-1, 7, 300)
    found = score(true, said)
    kept = true >= 0
    assert found["n"] == kept.sum()
    assert found["accuracy"] == pytest.approx(np.mean(true[kept] == said[kept]))
    answered = kept & (said >= 0)
    assert found["accuracy_answered"] == pytest.approx(np.mean(true[answered] == said[answered]))
    assert found["answered"] == pytest.approx(answered.sum() / kept.sum())
    expected = f1_score(true[kept], said[kept], labels=range(4), average="macro")
    assert found["macro_f1"] == pytest.approx(expected)


def test_intervals_by_hand():
    times = np.arange(10) / 10
    intervals = [Interval(0.2, 0.5, 3), Interval(0.5, 0.9, 5)]
    assert truth(times, intervals).tolist() == [-1, -1, 3, 3, 3, 5, 5, 5, 5, -1]
    labels = np.array([3, 3, 0, 0, 3, 3, 3, 5, 5, 5])
    assert switch_seconds(times, labels, intervals[0]) == pytest.approx(0.2)
    assert switch_seconds(times, labels, intervals[1]) == pytest.approx(0.2)
    assert switch_seconds(times, labels, Interval(0.2, 0.5, 1)) is None


def test_a_csv_of_another_kind_is_refused(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("frame,time_s\n0,0\n")
    assert run(["replay", str(tmp_path / "t.csv")]) == 2
    assert "other columns than a frame table" in " ".join(capsys.readouterr().err.split())
    assert run(["replay", str(tmp_path / "nowhere.csv")]) == 2
