"""A video or camera to an annotated video, a frame log and a summary."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mien.core.artifacts.framelog import STAGES, write_frame_log
from mien.core.config.live import LiveConfig
from mien.core.errors import InputError, UsageError
from mien.core.geometry import crop_face
from mien.core.labels import LABELS
from mien.core.progress import meter, say
from mien.runtime.overlay import draw_face
from mien.runtime.recognizer import Recognizer
from mien.runtime.smooth import Smoother
from mien.runtime.track import Tracker
from mien.runtime.video import VideoReader, VideoWriter


class Session:
    """What is carried from frame to frame."""

    def __init__(self, recognizer: Recognizer, config: LiveConfig) -> None:
        self.recognizer, self.config = recognizer, config
        self.tracker = Tracker()
        self.smoothers: dict[int, Smoother] = {}
        self.shown: dict[int, tuple[str, str | None]] = {}
        self.flips = Counter[str]()
        self.rows: list[dict[str, Any]] = []
        self.times: list[dict[str, float]] = []
        self.frames = self.with_face = 0
        self.face_seconds = 0.0

    def frame(self, number: int, moment: float, rgb: np.ndarray[Any, np.dtype[np.uint8]], *, draw: bool) -> None:
        """Detect, recognise, smooth and (in place) draw one frame."""
        marks = [time.perf_counter()]
        found = self.recognizer.find(rgb)
        marks.append(time.perf_counter())
        crops = [crop_face(rgb, d.box, self.recognizer.card.crop, d.landmarks) for d in found]
        raw, logits = self.recognizer.infer(np.stack(crops)) if crops else (np.empty((0, 7)), np.empty((0, 7)))
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
        self.times.append(times)
        self.frames += 1
        self.with_face += bool(found)
        for face_id, d, q, (p, label) in zip(ids, found, raw, smooth, strict=True):
            self._log(number, moment, face_id, d.box, q, p, label, times)

    def _smooth(self, face_id: int, logits: Any, moment: float) -> tuple[Any, str | None]:
        c = self.config
        if face_id not in self.smoothers:
            self.smoothers[face_id] = Smoother(
                cutoff=c.cutoff,
                beta=c.beta,
                dwell=c.dwell,
                hysteresis=c.hysteresis,
                thresholds=self.recognizer.card.decisions.thresholds,
            )
        return self.smoothers[face_id].update(logits, moment)

    def _log(
        self,
        number: int,
        moment: float,
        face_id: int,
        box: Any,
        raw: Any,
        smooth: Any,
        label: str | None,
        times: dict[str, float],
    ) -> None:
        raw_label = LABELS[int(np.argmax(raw))]
        before = self.shown.get(face_id)
        if before is not None:
            self.flips["raw"] += before[0] != raw_label
            self.flips["smoothed"] += before[1] != label
        self.shown[face_id] = (raw_label, label)
        self.rows.append(
            {
                "frame": number,
                "time_s": moment,
                "face_id": face_id,
                **dict(zip("xywh", box, strict=True)),
                "raw_label": raw_label,
                "label": label,
            }
            | {f"raw_{n}": float(v) for n, v in zip(LABELS, raw, strict=True)}
            | {f"smooth_{n}": float(v) for n, v in zip(LABELS, smooth, strict=True)}
            | {f"{n}_ms": v for n, v in times.items()}
        )

    def summary(self, wall_s: float, dropped: int, fps: float) -> dict[str, Any]:
        """The figures that `--json` prints. Flips are counted per minute of a seen face."""
        minutes = len(self.rows) / fps / 60
        latency = {
            stage: {f"p{q}": round(float(np.percentile([t[stage] for t in self.times], q)), 3) for q in (50, 95, 99)} for stage in STAGES
        } if self.times else {}  # fmt: skip
        return {
            "frames": self.frames, "frames_with_face": self.with_face, "identities": self.tracker.identities,
            "fps": round(self.frames / wall_s, 2) if wall_s > 0 else 0.0, "latency_ms": latency,
            "flips_per_minute": {k: round(self.flips[k] / minutes, 2) if minutes else 0.0 for k in ("raw", "smoothed")}, "dropped": dropped,
        }  # fmt: skip


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
    """Recognise a video to its end (or a camera until Ctrl-C); returns the summary."""
    recognizer = Recognizer.load(model, detect=config)
    _check_outputs(source, out, log)
    reader = VideoReader(source)
    session = Session(recognizer, config)
    started = time.perf_counter()
    limit, interrupted = config.max_frames, False
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(out, reader.fps)) if out else None
        progress = stack.enter_context(meter("frames", min(reader.expected, limit or reader.expected)))
        try:
            for number, moment, rgb in reader:
                session.frame(number, moment, rgb, draw=writer is not None)
                if writer:
                    writer.write(rgb)
                progress.advance()
                if limit and session.frames >= limit:
                    break
        except KeyboardInterrupt:
            interrupted = True
            say("stopped; what was recognised so far is written")
    if session.frames == 0 and not interrupted:
        raise InputError(
            f"No frame of {source} can be read.", rule="--input is a whole video file or a working camera."
        )
    stopped_early = bool(limit and session.frames >= limit) or reader.is_camera or interrupted
    dropped = 0 if stopped_early else max(0, reader.expected - session.frames)
    if log:
        write_frame_log(log, session.rows)
    return session.summary(time.perf_counter() - started, dropped, reader.fps)
