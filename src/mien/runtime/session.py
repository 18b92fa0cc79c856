"""Frames to rows: search, follow, crop, recognise, smooth, decide, count. Memory does not grow with time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mien.core.artifacts import videos
from mien.core.artifacts.framelog import ABSTAINED, DECODE_ERROR, NO_FACE, OK, STAGES, FrameLogMeta, FrameTables, Row
from mien.core.config.live import LiveRules
from mien.core.geometry import lies_in
from mien.core.labels import LABELS
from mien.runtime.detect import Rows
from mien.runtime.overlay import draw_face
from mien.runtime.percentiles import Percentiles
from mien.runtime.policy import LabelPolicy, thresholds_of
from mien.runtime.readers import Frame
from mien.runtime.recognizer import Recognizer
from mien.runtime.smooth import Floats
from mien.runtime.track import Tracked, Tracker


@dataclass
class FaceState:
    """A face that is present: its policy, and the time and labels of its last frame."""

    policy: LabelPolicy
    time_s: float
    raw_label: str | None = None
    label: str | None = None


@dataclass
class Pending:
    """A frame whose faces were cut out and not recognised yet; `ms` are the times of its stages."""

    frame: Frame
    faces: list[Tracked]
    crops: NDArray[np.uint8]
    ms: dict[str, float] = field(default_factory=dict)


class Session:
    """The state of one source from frame to frame.

    Parameters
    ----------
    recognizer
        the model and the detector
    rules
        of `live.json`
    tables
        where rows and times go; None: nowhere
    batch
        faces that are recognised together, of several frames where that is more than one. Then `finish` must be
        called at the end, and nothing is drawn.
    """

    def __init__(
        self, recognizer: Recognizer, rules: LiveRules, tables: FrameTables | None = None, *, batch: int = 1
    ) -> None:
        self.recognizer, self.rules, self.tables, self.batch = recognizer, rules, tables, batch
        self.thresholds = thresholds_of(rules, recognizer.card.decisions.thresholds)
        self.tracker = Tracker(rules)
        self.faces: dict[int, FaceState] = {}
        self.pending: list[Pending] = []
        self.flips = Counter[str]()
        self.labels = Counter[str]()
        self.latency = {stage: Percentiles() for stage in STAGES}
        self.frames = self.with_face = self.skipped = self.unreadable = 0
        self.seconds = self.face_seconds = 0.0

    def frame(self, frame: Frame, *, draw: bool = False) -> None:
        """Take one frame; with `draw` its own faces and labels are drawn on its pixels, in place."""
        if frame.rgb is None:
            self.finish()
            self.frames, self.unreadable, self.seconds = self.frames + 1, self.unreadable + 1, frame.time_s
            self._add({"frame": frame.number, "time_s": frame.time_s, "status": DECODE_ERROR})
            return
        self.pending.append(self._cut(frame, frame.rgb))
        if sum(len(p.faces) for p in self.pending) >= self.batch or len(self.pending) >= self.batch:
            self.finish(draw=draw)

    def _cut(self, frame: Frame, rgb: NDArray[np.uint8]) -> Pending:
        """Search or follow the faces of a frame, and cut them out."""
        ms, began = {"decode": frame.decode_ms}, time.perf_counter()
        if self.tracker.due:
            detections = self.recognizer.find(rgb)
            usable = [d for d in detections if lies_in(d.box, rgb)]
            self.skipped += len(detections) - len(usable)
            tracked = self.tracker.update(usable, frame.time_s)
            ms["detect"] = 1000 * (time.perf_counter() - began)
        else:
            tracked = self.tracker.follow(frame.time_s)
        began = time.perf_counter()
        inside = [t for t in tracked if lies_in(t.detection.box, rgb)]
        kept, crops = self.recognizer.crop(rgb, [t.detection for t in inside])
        faces = [t for t in inside if any(t.detection is d for d in kept)]
        ms["crop"] = 1000 * (time.perf_counter() - began)
        return Pending(frame, faces, crops, ms)

    def finish(self, *, draw: bool = False) -> None:
        """Recognise, smooth and write what is pending."""
        if not self.pending:
            return
        began, count = time.perf_counter(), sum(len(p.faces) for p in self.pending)
        raw = logits = np.empty((0, len(LABELS)), np.float32)
        if count:
            raw, logits = self.recognizer.infer(np.concatenate([p.crops for p in self.pending]))
        ms_per_face = 1000 * (time.perf_counter() - began) / max(1, count)
        start = 0
        for pending in self.pending:
            end = start + len(pending.faces)
            if pending.faces:
                pending.ms["recognize"] = ms_per_face * len(pending.faces)
            self._conclude(pending, raw[start:end], logits[start:end], draw=draw)
            start = end
        self.pending.clear()

    def _conclude(self, pending: Pending, raw: Rows, logits: Rows, *, draw: bool) -> None:
        """Smooth and decide the faces of one frame, draw them, write their rows."""
        frame, began = pending.frame, time.perf_counter()
        results = []
        for face, p, z in zip(pending.faces, raw, logits, strict=True):
            results.append((face, p, *self._smooth(face.face_id, z, frame.time_s)))
        pending.ms["smooth"] = 1000 * (time.perf_counter() - began)
        if draw and frame.rgb is not None:
            began = time.perf_counter()
            for face, _, smooth, label in results:
                draw_face(frame.rgb, face.detection.box, label, smooth, face.face_id)
            pending.ms["draw"] = 1000 * (time.perf_counter() - began)
        self.frames, self.seconds = self.frames + 1, frame.time_s
        self.with_face += bool(results)
        for face, p, smooth, label in results:
            raw_label = LABELS[int(np.argmax(p))]
            self._count(self.faces[face.face_id], raw_label, label, frame.time_s)
            self._add(_row(frame, face, p, smooth, raw_label, label))
        if not results:
            self._add({"frame": frame.number, "time_s": frame.time_s, "status": NO_FACE})
        self._time(pending)
        present = self.tracker.present | {t.face_id for other in self.pending for t in other.faces}
        self.faces = {face_id: state for face_id, state in self.faces.items() if face_id in present}

    def _smooth(self, face_id: int, logits: Rows, time_s: float) -> tuple[Floats, str | None]:
        if face_id not in self.faces:
            self.faces[face_id] = FaceState(LabelPolicy(self.rules, self.thresholds), time_s)
        return self.faces[face_id].policy.update(logits, time_s)

    def _count(self, face: FaceState, raw_label: str, label: str | None, time_s: float) -> None:
        """Count how the labels changed since the face was seen last, and the seconds since then."""
        self.labels[label or ABSTAINED] += 1
        if face.raw_label is not None:
            self.flips["raw"] += face.raw_label != raw_label
            self.flips["smoothed"] += face.label != label
            self.face_seconds += time_s - face.time_s
        face.raw_label, face.label, face.time_s = raw_label, label, time_s

    def _time(self, pending: Pending) -> None:
        """Count and write the times of one frame's stages."""
        times = pending.ms | {"total": sum(pending.ms.values())}
        for stage, value in times.items():
            self.latency[stage].add(value)
        if self.tables is not None:
            frame = {"frame": pending.frame.number, "time_s": pending.frame.time_s, "faces": len(pending.faces)}
            self.tables.times.add(frame | {f"{stage}_ms": value for stage, value in times.items()})

    def _add(self, row: Row) -> None:
        if self.tables is not None:
            self.tables.rows.add(row)

    def summary(self, wall_s: float, dropped: int) -> videos.SessionSummary:
        """The figures that `--json` prints.

        Flips are counted per minute that a face was seen; a stage's latency is that of frames where it was done.
        """
        minutes = self.face_seconds / 60
        latency: dict[str, videos.Percentiles] = {
            stage: {"p50": round(percentile(50), 3), "p95": round(percentile(95), 3), "p99": round(percentile(99), 3)}
            for stage, percentile in self.latency.items()
            if percentile.n
        }
        return {
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "frames_with_face": self.with_face,
            "identities": self.tracker.identities,
            "fps": round(self.frames / wall_s, 2) if wall_s > 0 else 0.0,
            "latency_ms": latency,
            "flips_per_minute": {
                "raw": round(self.flips["raw"] / minutes, 2) if minutes else 0.0,
                "smoothed": round(self.flips["smoothed"] / minutes, 2) if minutes else 0.0,
            },
            "labels": dict(sorted(self.labels.items())),
            "skipped_detections": self.skipped,
            "unreadable_frames": self.unreadable,
            "dropped": dropped,
        }

    def meta(self, source: str) -> FrameLogMeta:
        """The metadata of this source's frame table: everything that `mien replay` needs."""
        card = self.recognizer.card
        return {
            "source": source,
            "model": card.name,
            "weights_hash": card.weights_hash,
            "rules": self.rules.model_dump(),
            "thresholds": card.decisions.thresholds.tolist(),
        }


def _row(frame: Frame, face: Tracked, raw: Rows, smooth: Floats, raw_label: str, label: str | None) -> Row:
    """A row of the frame table."""
    return (
        {"frame": frame.number, "time_s": frame.time_s, "status": OK if label else ABSTAINED}
        | {"face_id": face.face_id, "raw_label": raw_label, "label": label}
        | dict(zip("xywh", face.detection.box, strict=True))
        | {f"raw_{n}": float(v) for n, v in zip(LABELS, raw, strict=True)}
        | {f"smooth_{n}": float(v) for n, v in zip(LABELS, smooth, strict=True)}
    )
