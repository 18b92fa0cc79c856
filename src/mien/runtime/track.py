"""Who is who from frame to frame: greedy matching of boxes by overlap."""

from __future__ import annotations

from dataclasses import dataclass

from mien.core.geometry import Box


@dataclass
class Track:
    """One face over time."""

    face_id: int
    box: Box
    last_seen_s: float


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a[2] * a[3] + b[2] * b[3] - both)


class Tracker:
    """Gives each detection a face number; a face that was away for `patience` seconds is new."""

    def __init__(self, *, min_overlap: float = 0.25, patience: float = 1.0) -> None:
        self.min_overlap, self.patience = min_overlap, patience
        self._tracks: list[Track] = []
        self.identities = 0

    def update(self, boxes: list[Box], time_s: float) -> list[int]:
        """Face numbers of this frame's boxes, in their order."""
        self._tracks = [t for t in self._tracks if time_s - t.last_seen_s <= self.patience]
        pairs = sorted(
            ((overlap(t.box, box), i, j) for i, t in enumerate(self._tracks) for j, box in enumerate(boxes)),
            reverse=True,
        )
        taken: dict[int, Track] = {}
        used: set[int] = set()
        for score, i, j in pairs:
            if score < self.min_overlap or i in used or j in taken:
                continue
            used.add(i)
            taken[j] = self._tracks[i]
        for j, box in enumerate(boxes):
            if j not in taken:
                taken[j] = Track(self.identities, box, time_s)
                self.identities += 1
                self._tracks.append(taken[j])
            taken[j].box, taken[j].last_seen_s = box, time_s
        return [taken[j].face_id for j in range(len(boxes))]

    @property
    def present(self) -> set[int]:
        """Numbers of the faces that were seen within the last `patience` seconds; others never come back."""
        return {t.face_id for t in self._tracks}
