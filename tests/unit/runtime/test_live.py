"""A video or camera from its first frame to its last: time, memory, errors in the middle."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.matroska import write_matroska
from helpers.models import card, colour_model
from mien.core.artifacts import framelog
from mien.core.artifacts.framelog import frame_log, read_frame_log
from mien.core.config.live import LiveConfig
from mien.core.geometry import CropSpec
from mien.core.labels import LABELS
from mien.runtime import readers, video
from mien.runtime import session as session_module
from mien.runtime.detect import Detection, Finder
from mien.runtime.percentiles import Percentiles
from mien.runtime.readers import Frame
from mien.runtime.recognizer import Recognizer
from mien.runtime.session import Session
from mien.stages import live


class FakeCapture:
    """Stands for `cv2.VideoCapture`: frames of one colour each, with timestamps of their own."""

    def __init__(self, colours, stamps_ms, fps):
        self.colours, self.stamps, self.fps, self.at = colours, stamps_ms, fps, -1

    def isOpened(self):
        return True

    def get(self, prop):
        if prop == cv2.CAP_PROP_POS_MSEC:
            return self.stamps[self.at]
        return {cv2.CAP_PROP_FPS: self.fps, cv2.CAP_PROP_FRAME_COUNT: len(self.colours)}.get(prop, 0.0)

    def read(self):
        self.at += 1
        if self.at >= len(self.colours):
            return False, None
        return True, np.full((48, 64, 3), self.colours[self.at][::-1], np.uint8)

    def release(self):
        pass


CAPTURE = cv2.VideoCapture  # the true one, also where a test puts another in its place
RED, GREEN = (250, 0, 0), (0, 250, 0)


@pytest.fixture
def model(tmp_path):
    return colour_model(tmp_path / "colour.onnx")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A function that makes `--input` show given frames at given milliseconds."""

    def make(colours, stamps_ms, fps=25.0):
        (tmp_path / "in.mp4").write_bytes(b"stands for a video")
        monkeypatch.setattr(readers.cv2, "VideoCapture", lambda _: FakeCapture(colours, stamps_ms, fps))
        return str(tmp_path / "in.mp4")

    return make


def settings(**changes) -> LiveConfig:
    return LiveConfig(
        **({"detector": "none", "dwell": 0.0, "hysteresis": 0.0, "cutoff": 100.0, "detect_every": 1} | changes)
    )


def test_flips_a_minute_are_of_the_time_that_passed(source, model):
    """13 frames, one every half second, each of another label: 12 flips in 6 seconds, whatever rate is stated."""
    frames = [RED if k % 2 else GREEN for k in range(13)]
    done = live.run(source(frames, [500.0 * k for k in range(13)], fps=30.0), model, settings())
    assert done["flips_per_minute"]["raw"] == pytest.approx(120)
    assert done["seconds"] == pytest.approx(6.0)


def test_frames_are_timed_by_their_stamps_and_by_the_rate_where_there_are_none(source, tmp_path, model):
    stamps = [100.0, 140.0, 400.0, 400.0, 1000.0]  # the first is not 0, one comes twice
    live.run(source([RED] * 5, stamps), model, settings(), log=tmp_path / "f.parquet")
    times = read_frame_log(tmp_path / "f.parquet")["time_s"].to_pylist()
    assert times == pytest.approx([0.0, 0.04, 0.3, 0.34, 0.9])
    live.run(source([RED] * 5, [0.0] * 5), model, settings(), log=tmp_path / "f.parquet")
    assert read_frame_log(tmp_path / "f.parquet")["time_s"].to_pylist() == pytest.approx([k / 25 for k in range(5)])


@pytest.mark.parametrize("fps, expected", [(1000.0, 25.0), (0.0, 25.0), (29.97, 29.97)])
def test_a_time_base_is_not_taken_for_a_rate(source, fps, expected):
    assert readers.open_reader(source([RED], [0.0], fps=fps)).fps == expected


def frames_of(path):
    capture, out = CAPTURE(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return out, capture.get(cv2.CAP_PROP_FPS)
        out.append(frame[..., ::-1])


def test_the_written_video_plays_in_real_time(tmp_path):
    """A frame at 0 s, one at 0.4 s, two within a twenty-fifth of a second at 1 s: 26 frames at 25 a second."""
    colours = {0.0: RED, 0.4: GREEN, 1.0: RED, 1.01: (0, 0, 250)}
    with video.VideoWriter(tmp_path / "out.mp4", 25.0) as writer:
        for moment, colour in colours.items():
            writer.write(np.full((48, 64, 3), colour, np.uint8), 7 + moment)
    frames, fps = frames_of(tmp_path / "out.mp4")
    assert fps == 25
    assert [int(f.mean((0, 1)).argmax()) for f in frames] == [0] * 10 + [1] * 15 + [2]


def test_a_steady_video_keeps_its_frames(tmp_path):
    with video.VideoWriter(tmp_path / "out.mp4", 23.976) as writer:
        for k in range(60):
            writer.write(np.zeros((48, 64, 3), np.uint8), round(k / 23.976, 3))
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 60


def test_an_error_in_the_middle_keeps_what_was_done(source, tmp_path, model, monkeypatch, capsys):
    shown = session_module.draw_face
    calls = []

    def breaks(*arguments):
        calls.append(1)
        if len(calls) == 8:
            raise RuntimeError("broken on purpose")
        shown(*arguments)

    monkeypatch.setattr(session_module, "draw_face", breaks)
    place = source([RED] * 20, [40.0 * k for k in range(20)])
    with pytest.raises(RuntimeError, match="on purpose"):
        live.run(place, model, settings(), out=tmp_path / "o.mp4", log=tmp_path / "f.parquet")
    assert read_frame_log(tmp_path / "f.parquet")["frame"].to_pylist() == list(range(7))
    assert len(frames_of(tmp_path / "o.mp4")[0]) == 7
    assert "7 frames" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "colour.onnx",
        "f.parquet",
        "f_times.parquet",
        "in.mp4",
        "o.mp4",
    ]


def test_the_table_has_a_row_a_frame_at_least_and_says_what_is_missing(tmp_path):
    """A folder of frames: a face, nothing, no image, a face that is too unsure to be named."""
    from mien.runtime.detect import WholeImage

    folder, images = tmp_path / "frames", {"f1": RED, "f2": RED, "f10": (60, 60, 60), "f11": RED}
    folder.mkdir()
    for name, colour in images.items():
        cv2.imwrite(str(folder / f"{name}.png"), np.full((40, 40, 3), colour[::-1], np.uint8))
    (folder / "f9.png").write_bytes(b"no image")

    class Some(WholeImage):
        def detect(self, image):
            return [] if self.asked() == 1 else super().detect(image)

        count = -1

        def asked(self):
            self.count += 1
            return self.count

    model = colour_model(tmp_path / "colour.onnx")
    recognizer = Recognizer.load(model, detect=settings())
    recognizer._finder.detector = Some()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live.Recognizer, "load", lambda *a, **k: recognizer)
        rules = {"filter": "none", "thresholds": {"happy": 0.6}, "release": 0.0, "frame_rate": 10.0}
        done = live.run(str(folder), model, settings(**rules), log=tmp_path / "f.parquet")
    rows = read_frame_log(tmp_path / "f.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "no_face", "decode_error", "abstained", "ok"]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["time_s"] for row in rows] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert [row["label"] for row in rows] == ["happy", None, None, None, "happy"]
    for row in rows[1:3]:
        assert {k for k, v in row.items() if v is not None} == {"frame", "time_s", "status"}
    assert done["labels"] == {"abstained": 1, "happy": 2}
    assert (done["frames"], done["unreadable_frames"], done["dropped"]) == (5, 1, 1)
    times = pq.read_table(tmp_path / "f_times.parquet").to_pylist()
    assert [row["faces"] for row in times] == [1, 0, 1, 1]
    assert all(
        row["total_ms"] == pytest.approx(sum(row[f"{s}_ms"] or 0 for s in framelog.STAGES[:-1])) for row in times
    )
    assert all(row["draw_ms"] is None for row in times)


def test_a_variable_frame_rate_keeps_its_times_within_a_millisecond(tmp_path, model):
    """A Matroska file whose timestamps were written by hand."""
    stamps = [0, *np.cumsum(np.random.default_rng(4).integers(5, 300, 40)).tolist()]
    frames = [np.full((48, 64, 3), RED if k % 2 else GREEN, np.uint8) for k in range(41)]
    file = write_matroska(tmp_path / "variable.mkv", frames, stamps)
    live.run(str(file), model, settings(), log=tmp_path / "f.parquet")
    table = read_frame_log(tmp_path / "f.parquet")
    assert table["time_s"].to_pylist() == pytest.approx([s / 1000 for s in stamps], abs=1e-3)
    assert table["raw_label"].to_pylist() == ["happy" if k % 2 else "sad" for k in range(41)]


def test_a_truncated_file_says_so_and_keeps_what_it_has(source, tmp_path, model, monkeypatch, capsys):
    reader = source([RED] * 40, [40.0 * k for k in range(40)])

    class Longer(FakeCapture):
        def get(self, prop):
            return 100.0 if prop == cv2.CAP_PROP_FRAME_COUNT else super().get(prop)

    monkeypatch.setattr(readers.cv2, "VideoCapture", lambda _: Longer([RED] * 40, [40.0 * k for k in range(40)], 25.0))
    done = live.run(reader, model, settings(), log=tmp_path / "f.parquet")
    status = read_frame_log(tmp_path / "f.parquet")["status"].to_pylist()
    assert status == ["ok"] * 40 + ["decode_error"]
    assert "40 of 100 frames" in " ".join(capsys.readouterr().err.split())
    assert (done["dropped"], done["unreadable_frames"]) == (60, 1)


def test_a_camera_gives_its_newest_frame_and_counts_the_others(monkeypatch):
    import threading

    taken = threading.Event()

    class Device(FakeCapture):
        def read(self):
            if self.at == 9:  # ten frames were given: wait until somebody took the last one
                taken.wait(5)
            return super().read()

    monkeypatch.setattr(readers.cv2, "VideoCapture", lambda _: Device([RED] * 10, [], 30.0))
    camera = readers.open_reader("0")
    frames = iter(camera)
    seen = [next(frames)]
    while seen[-1].number < 9:
        seen.append(next(frames))
    taken.set()
    assert list(frames) == []
    assert camera.missed == 10 - len(seen)
    assert [f.number for f in seen] == sorted({f.number for f in seen})
    assert camera.endless


def test_an_absent_camera_is_said_in_words(monkeypatch):
    class Absent(FakeCapture):
        def isOpened(self):
            return False

    monkeypatch.setattr(readers.cv2, "VideoCapture", lambda _: Absent([], [], 0.0))
    with pytest.raises(live.InputError, match="Camera 3 cannot be opened") as caught:
        readers.open_reader("3")
    assert "attached" in caught.value.fix


@pytest.mark.parametrize("log_too", [True, False])
def test_a_full_disk_in_the_middle_keeps_what_was_done(source, tmp_path, model, monkeypatch, log_too):
    from types import SimpleNamespace

    from mien.core.artifacts import base

    monkeypatch.setattr(framelog, "ROW_GROUP", 10)
    monkeypatch.setattr(video, "CHECK_EVERY", 10)
    free = iter([1 << 40] * 4)
    monkeypatch.setattr(base.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free, 1000)))
    log = tmp_path / "f.parquet" if log_too else None
    with pytest.raises(OSError, match="No space left"):
        live.run(
            source([RED] * 200, [40.0 * k for k in range(200)]), model, settings(), out=tmp_path / "o.mp4", log=log
        )
    kept = len(frames_of(tmp_path / "o.mp4")[0])
    assert 10 <= kept < 60
    if log is not None:
        assert len(read_frame_log(log)) in (kept, kept + 1)


def test_no_face_in_a_whole_file_is_said(source, model, capsys):
    done = live.run(source([RED] * 4, [40.0 * k for k in range(4)]), model, settings(detector="haar"))
    assert done["frames_with_face"] == 0
    assert "No face was found" in " ".join(capsys.readouterr().err.split())


def test_no_frame_leaves_nothing(source, tmp_path, model):
    with pytest.raises(live.InputError, match="No frame"):
        live.run(source([], []), model, settings(), out=tmp_path / "o.mp4", log=tmp_path / "f.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["colour.onnx", "in.mp4"]


def test_a_bad_detection_is_counted_and_the_video_goes_on(source, tmp_path, model, monkeypatch):
    class Odd:
        name = "odd"
        count = 0

        def detect(self, image):
            self.count += 1
            good = Detection((5.0, 5.0, 30.0, 30.0), 0.9)
            bad = [Detection((float("nan"), 0.0, 9.0, 9.0), 0.9), Detection((900.0, 0.0, 20.0, 20.0), 0.9)]
            return [good, *bad] if self.count == 5 else [good]

    session, described = live.Recognizer.load(model)._session, card(CropSpec(size=32))
    odd = Recognizer(session, described, Finder(Odd(), min_confidence=0.5, side=4096))
    monkeypatch.setattr(live.Recognizer, "load", lambda *a, **k: odd)
    place = source([RED] * 10, [40.0 * k for k in range(10)])
    done = live.run(place, model, settings(), out=tmp_path / "o.mp4", log=tmp_path / "f.parquet")
    assert (done["frames"], done["frames_with_face"], done["skipped_detections"]) == (10, 10, 2)
    assert len(read_frame_log(tmp_path / "f.parquet")) == len(frames_of(tmp_path / "o.mp4")[0]) == 10


class Cheap:
    """A recogniser that costs nothing: in one frame of four a face, which is new now and then, in one of forty two."""

    def __init__(self):
        self.card = card(CropSpec(size=16))
        self.at = 0

    def find(self, rgb):
        self.at += 1
        faces = [Detection((10.0 * (self.at // 50 % 7), 0.0, 8.0, 8.0), 1.0), Detection((400.0, 0.0, 20.0, 20.0), 1.0)]
        return faces[: (self.at % 4 == 0) + (self.at % 40 == 0)]

    def crop(self, rgb, found):
        return found, np.empty((len(found), 16, 16, 3), np.uint8)

    def infer(self, crops):
        p = np.zeros((len(crops), len(LABELS)))
        p[:, self.at // 12 % 7] = 1.0
        return p, 3 * p


def sizes(session) -> dict[str, int]:
    """How many things a session holds, by the name of what holds them."""
    found = {"rows": len(session.tables.rows.buffer), "times": len(session.tables.times.buffer)}
    for place in (session, session.tracker):
        for name, value in vars(place).items():
            if isinstance(value, dict | list | set):
                found[name] = len(value)
    return found


@pytest.mark.slow
def test_a_long_session_holds_no_more_than_a_short_one(tmp_path, monkeypatch):
    monkeypatch.setattr(framelog, "ROW_GROUP", 128)
    rgb = np.zeros((24, 424, 3), np.uint8)
    with frame_log(tmp_path / "f.parquet", {}) as log:
        session = Session(Cheap(), settings().rules, log)
        largest: dict[str, int] = {}
        for k in range(10_000):
            session.frame(Frame(k, k / 25, rgb, 0.1))
            if k == 2_000:
                early, largest = largest, {}
            for name, size in sizes(session).items() if k % 4 == 3 else ():
                largest[name] = max(size, largest.get(name, 0))
    assert session.tracker.identities > 150
    assert largest == early
    assert largest["rows"] < 128
    summary = session.summary(1.0, 0)
    assert summary["frames"] == 10_000
    assert set(summary["latency_ms"]["total"]) == {"p50", "p95", "p99"}
    rows = pq.ParquetFile(tmp_path / "f.parquet")
    assert rows.metadata.num_rows == 250 + 10_000  # a row a face, and one of a frame without
    assert rows.metadata.num_row_groups == -(-10_250 // 128)
    assert pq.ParquetFile(tmp_path / "f_times.parquet").metadata.num_rows == 10_000


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_of_a_stream_are_numpys_within_a_bin(seed):
    values = np.random.default_rng(seed).lognormal(1, 1.5, 5000)
    found = Percentiles()
    for value in values:
        found.add(value)
    for q in (1, 50, 95, 99, 100):
        assert found(q) == pytest.approx(np.percentile(values, q, method="inverted_cdf"), rel=0.0051)


def test_percentiles_of_values_outside_the_bins_are_the_ends():
    found = Percentiles()
    for value in (0.0, 1e12):
        found.add(value)
    assert found(50) == pytest.approx(1e-3, rel=0.01)
    assert found(100) == pytest.approx(1e6, rel=0.02)
