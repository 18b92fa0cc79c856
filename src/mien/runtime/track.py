"""Faces followed from frame to frame by position and motion alone: no face is recognised as a person's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from mien.core.config.live import LiveRules
from mien.core.geometry import Box
from mien.runtime.detect import Detection
from mien.runtime.motion import LONGEST, Motion

NEVER = 1e6  # the cost of a pair that is no match
SAME_SIZE = 2.5  # the size of a face does not change by this factor between two detections
DOUBLE = 0.4  # an overlap at which two boxes show one face
SETTLED = 3  # detections after which a face's velocity is known
SHARED = 0.5  # box sides from a detection within which it may be a face's that is covered by another
FAST = 0.25  # box sides between two searches at which a face is searched for in every frame


@dataclass(frozen=True)
class Tracked:
    """A face in one frame: its number, and its box (and landmarks) as followed; `measured`: this frame was searched."""

    face_id: int
    detection: Detection
    measured: bool


@dataclass
class Track:
    """One face over time; `anchor` is its last detection.

    `missed`: the last search did not find it. `covered`: the last search found one box for it and another face.
    """

    face_id: int
    motion: Motion
    anchor: Detection
    hits: int = 1
    missed: bool = False
    covered: bool = False

    def face_at(self, time_s: float, *, measured: bool) -> Tracked:
        """The face where it is expected at `time_s`, its landmarks moved along with the box."""
        box = self.motion.box_at(time_s)
        landmarks = self.anchor.landmarks
        if landmarks is not None:
            x, y, width, height = self.anchor.box
            scale = np.array([box[2] / width, box[3] / height])
            landmarks = ((landmarks - [x, y]) * scale + box[:2]).astype(np.float32)
        return Tracked(self.face_id, replace(self.anchor, box=box, landmarks=landmarks), measured)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a[2] * a[3] + b[2] * b[3] - both)


class Tracker:
    """Gives faces numbers and follows them between searches.

    If `due`, call `update` with the detections, else `follow`. Faces that the last search found are matched first, so
    that a face that stays keeps its number while others come and go; then those that are missing for at most
    `patience` seconds, near where they were last or were heading. Both by the Hungarian method (Kuhn 1955) on the
    distance of centres in box sides. Each remaining detection begins a new face with a new number.
    """

    def __init__(self, rules: LiveRules) -> None:
        self.rules = rules
        self._tracks: list[Track] = []
        self._unsearched = 0
        self._interval = 0.0
        self._searched_s: float | None = None
        self.identities = 0

    @property
    def present(self) -> set[int]:
        """Numbers of the faces that were found within the last `patience` seconds; others never come back."""
        return {t.face_id for t in self._tracks}

    @property
    def due(self) -> bool:
        """Whether the coming frame is to be searched: each n-th, and each while a face is new, missing or fast."""
        if self._searched_s is None or self._unsearched >= self.rules.detect_every - 1:
            return True
        return any(
            t.missed or t.covered or t.hits < SETTLED or t.motion.sides_per_second * self._interval > FAST
            for t in self._tracks
        )

    def follow(self, time_s: float) -> list[Tracked]:
        """Faces of a frame that was not searched: where those that the last search found are expected."""
        self._unsearched += 1
        return [t.face_at(time_s, measured=False) for t in self._tracks if not t.missed]

    def update(self, detections: list[Detection], time_s: float) -> list[Tracked]:
        """Faces of a frame that was searched; the longest known ones first. Times must not fall."""
        if self._searched_s is not None:
            # How long a whole interval lasts, also where this one was cut short.
            self._interval = (time_s - self._searched_s) / (self._unsearched + 1) * self.rules.detect_every
        self._unsearched, self._searched_s = 0, time_s
        self._tracks = [t for t in self._tracks if time_s - t.motion.time_s <= self.rules.patience]
        remaining = [d for d in detections if np.isfinite(d.box).all() and min(d.box[2:]) >= 1]
        remaining = self._without_shared(remaining, time_s)
        for missed in (False, True):
            remaining = self._match(
                [t for t in self._tracks if t.missed == missed and not t.covered], remaining, time_s
            )
        for track in self._tracks:
            track.missed = track.motion.time_s < time_s and not track.covered
        tracks = [t for t in self._tracks if not t.missed]
        for detection in remaining:
            if self._is_new(detection, tracks, time_s):
                tracks.append(Track(self.identities, Motion(detection.box, time_s, self.rules), detection))
                self._tracks.append(tracks[-1])
                self.identities += 1
        return [t.face_at(time_s, measured=True) for t in tracks]

    def _without_shared(self, detections: list[Detection], time_s: float) -> list[Detection]:
        """Mark faces that cross, of which one box was found, as covered; returns the other detections.

        The box may be either face's: both are followed by their motion until there are two boxes again, for as
        long as a motion can be trusted.
        """
        for track in self._tracks:
            track.covered = False
        moving = [t for t in self._tracks if not t.missed and t.hits >= SETTLED and time_s - t.motion.time_s <= LONGEST]
        remaining = []
        for detection in detections:
            near = [t for t in moving if _cost(t, detection.box, time_s) < SHARED]
            others = [d for d in detections if d is not detection]
            if len(near) > 1 and not any(_cost(t, d.box, time_s) < SHARED for t in near for d in others):
                for track in near:
                    track.covered = True
            else:
                remaining.append(detection)
        return remaining

    def _is_new(self, detection: Detection, tracks: list[Track], time_s: float) -> bool:
        sure = detection.confidence >= self.rules.start_confidence
        return sure and all(overlap(detection.box, t.motion.box_at(time_s)) < DOUBLE for t in tracks)

    def _match(self, tracks: list[Track], detections: list[Detection], time_s: float) -> list[Detection]:
        """Correct `tracks` by the detections that are theirs; returns the others."""
        if not tracks or not detections:
            return detections
        costs = np.array([[_cost(t, d.box, time_s) for d in detections] for t in tracks])
        costs[costs > self.rules.max_distance] = NEVER
        taken = set()
        for i, j in zip(*linear_sum_assignment(costs), strict=True):
            if costs[i, j] < NEVER:
                track, detection = tracks[i], detections[j]
                track.motion.correct(detection.box, time_s)
                track.anchor, track.hits = detection, track.hits + 1
                taken.add(j)
        return [d for j, d in enumerate(detections) if j not in taken]


def _cost(track: Track, box: Box, time_s: float) -> float:
    """How far a box is from where a face is expected, in sides of its box.

    A face that is missing may be anywhere between its last place and where it was heading.
    """
    motion, x, y = track.motion, box[0] + box[2] / 2, box[1] + box[3] / 2
    ratio = max(box[2:]) / motion.side
    if not 1 / SAME_SIZE < ratio < SAME_SIZE:
        return NEVER
    end = motion.centre_at(time_s)
    start = motion.centre if track.missed else end
    way = end - start
    length = float(way @ way)
    share = min(1.0, max(0.0, float((np.array([x, y]) - start) @ way) / length)) if length > 0 else 0.0
    nearest = start + share * way
    return float(np.hypot(x - nearest[0], y - nearest[1])) / motion.side
