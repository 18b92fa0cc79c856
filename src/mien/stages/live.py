"""A video or camera to an annotated video, a frame log and a summary."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.core.artifacts.framelog import STAGES, FrameLogWriter, frame_log
from mien.core.config.live import LiveConfig
from mien.core.errors import InputError, UsageError
from mien.core.labels import LABELS
from mien.core.progress import meter, say
from mien.runtime.overlay import draw_face
from mien.runtime.percentiles import Percentiles
from mien.runtime.policy import LabelPolicy, thresholds_of
from mien.runtime.recognizer import Recognizer
from mien.runtime.track import Tracker
from mien.runtime.video import VideoReader, VideoWriter


@dataclass
class Seen:
    """A face that is present: how its label is decided, and when and as what it was seen last."""

    policy: LabelPolicy
    moment: float
    raw_label: str | None = None
    label: str | None = None


class Session:
    """What is carried from frame to frame. Its size does not grow with the frames or the faces that were seen."""

    def __init__(self, recognizer: Recognizer, config: LiveConfig, log: FrameLogWriter | None = None) -> None:
        self.recognizer, self.config, self.log = recognizer, config, log
        self.rules, self.thresholds = config.rules, thresholds_of(config.rules, recognizer.card.decisions.thresholds)
        self.tracker = Tracker()
        self.faces: dict[int, Seen] = {}
        self.flips = Counter[str]()
        self.latency = {stage: Percentiles() for stage in STAGES}
        self.frames = self.with_face = self.skipped = 0
        self.seconds = self.face_seconds = 0.0

    def frame(self, number: int, moment: float, rgb: np.ndarray[Any, np.dtype[np.uint8]], *, draw: bool) -> None:
        """Detect, recognise, smooth and (in place) draw one frame of `moment`, seconds."""
        marks = [time.perf_counter()]
        detected = self.recognizer.find(rgb)
        marks.append(time.perf_counter())
        found, crops = self.recognizer.crop(rgb, detected)
        raw, logits = self.recognizer.infer(crops) if found else (np.empty((0, 7)), np.empty((0, 7)))
        marks.append(time.perf_counter())
        ids = self.tracker.update([d.box for d in found], moment)
        smooth = [self._smooth(i, z, moment) for i, z in zip(ids, logits, strict=True)]
        marks.append(time.perf_counter())
        if draw:
            for face_id, d, (p, label) in zip(ids, found, smooth, strict=True):
                draw_face(rgb, d.box, label, p, face_id)
        marks.append(time.perf_counter())
        spent = [1000 * (b - a) for a, b in zip(marks[:-1], marks[1:], strict=True)]
        times = dict(zip(STAGES, [*spent, sum(spent)], strict=True))
        for stage, value in times.items():
            self.latency[stage].add(value)
        self.frames, self.seconds = self.frames + 1, moment
        self.with_face += bool(found)
        self.skipped += len(detected) - len(found)
        for face_id, d, q, (p, label) in zip(ids, found, raw, smooth, strict=True):
            raw_label = LABELS[int(np.argmax(q))]
            self._count(self.faces[face_id], raw_label, label, moment)
            if self.log is not None:
                self.log.add(_row(number, moment, face_id, d.box, q, p, raw_label, label, times))
        present = self.tracker.present
        self.faces = {face_id: seen for face_id, seen in self.faces.items() if face_id in present}

    def _smooth(self, face_id: int, logits: Any, moment: float) -> tuple[Any, str | None]:
        if face_id not in self.faces:
            self.faces[face_id] = Seen(LabelPolicy(self.rules, self.thresholds), moment)
        return self.faces[face_id].policy.update(logits, moment)

    def _count(self, face: Seen, raw_label: str, label: str | None, moment: float) -> None:
        """Count how the labels changed since the face was seen last, and the seconds since then."""
        if face.raw_label is not None:
            self.flips["raw"] += face.raw_label != raw_label
            self.flips["smoothed"] += face.label != label
            self.face_seconds += moment - face.moment
        face.raw_label, face.label, face.moment = raw_label, label, moment

    def summary(self, wall_s: float, dropped: int) -> dict[str, Any]:
        """The figures that `--json` prints. Flips are counted per minute that a face was seen."""
        minutes = self.face_seconds / 60
        latency = {
            stage: {f"p{q}": round(found(q), 3) for q in (50, 95, 99)} for stage, found in self.latency.items()
        } if self.frames else {}  # fmt: skip
        return {
            "frames": self.frames, "seconds": round(self.seconds, 3), "frames_with_face": self.with_face, "identities": self.tracker.identities,
            "fps": round(self.frames / wall_s, 2) if wall_s > 0 else 0.0, "latency_ms": latency,
            "flips_per_minute": {k: round(self.flips[k] / minutes, 2) if minutes else 0.0 for k in ("raw", "smoothed")},
            "skipped_detections": self.skipped, "dropped": dropped,
        }  # fmt: skip


def _row(
    number: int, moment: float, face_id: int, box: Any, raw: Any, smooth: Any, raw_label: str, label: str | None, times: dict[str, float]
) -> dict[str, Any]:  # fmt: skip
    """A row of the frame log."""
    return (
        {"frame": number, "time_s": moment, "face_id": face_id, "raw_label": raw_label, "label": label}
        | dict(zip("xywh", box, strict=True))
        | {f"raw_{n}": float(v) for n, v in zip(LABELS, raw, strict=True)}
        | {f"smooth_{n}": float(v) for n, v in zip(LABELS, smooth, strict=True)}
        | {f"{n}_ms": v for n, v in times.items()}
    )


def _check_outputs(source: str, out: Path | None, log: Path | None) -> None:
    """Everything about the output that can be known to be wrong before the first frame."""
    for path, flag, suffix in ((out, "--out", ".mp4"), (log, "--log", ".parquet")):
        if path is None:
            continue
        if path.is_dir() or path.suffix.lower() != suffix:
            raise UsageError(f"{flag} {path}.", rule=f"It is a file that ends in {suffix}.")
        if path.resolve() == Path(source).resolve():
            raise UsageError(f"The output is the input, {source}.", rule="A video is never written over itself.")


def run(
    source: str, model: Path | None, config: LiveConfig, *, out: Path | None = None, log: Path | None = None
) -> dict[str, Any]:
    """Recognise a video to its end (or a camera until Ctrl-C); returns the summary.

    After an error in the middle the video and the log hold what was recognised until then; the error is raised.
    """
    recognizer = Recognizer.load(model, detect=config)
    _check_outputs(source, out, log)
    reader = VideoReader(source)
    started, interrupted, failure = time.perf_counter(), False, None
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(out, reader.fps)) if out else None
        session = Session(recognizer, config, stack.enter_context(frame_log(log)) if log else None)
        try:
            _frames(session, reader, writer)
        except KeyboardInterrupt:
            interrupted = True
            say("stopped; what was recognised so far is written")
        except Exception as error:
            if not session.frames:
                raise
            failure = error
            say(f"an error after {session.frames} frames; what was recognised until then is written")
        if session.frames == 0 and not interrupted:
            raise InputError(
                f"No frame of {source} can be read.", rule="--input is a whole video file or a working camera."
            )
    if failure is not None:
        raise failure
    whole = not (session.frames == config.max_frames or reader.is_camera or interrupted)
    dropped = max(0, reader.expected - session.frames) if whole else 0
    return session.summary(time.perf_counter() - started, dropped)


def _frames(session: Session, reader: VideoReader, writer: VideoWriter | None) -> None:
    """All frames of a reader through a session, at most as many as it is to take."""
    limit = session.config.max_frames
    with meter("frames", min(reader.expected, limit or reader.expected)) as progress:
        for number, moment, rgb in reader:
            session.frame(number, moment, rgb, draw=writer is not None)
            if writer:
                writer.write(rgb, moment)
            progress.advance()
            if session.frames == limit:
                return
