"""Distillation's fast path: a teacher's log-probabilities of a fixed number of augmented views, computed once.

Epoch e shows view e mod `views` of every image, so that the student sees the very pixels that the teacher saw, as when
soft labels are stored with their crops (Shen and Xing 2022, arXiv 2112.01528, section 3.1). Of a mixed image the
teacher's probabilities are taken as the same mixture of its two images' ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien.core.artifacts.pixels import PixelRows
from mien.core.artifacts.teacher_views import computing_view, read_view, write_view
from mien.core.labels import N_CLASSES
from mien.core.progress import meter
from mien.nn.augment.augmentation import Augmentation
from mien.nn.augment.random_source import ViewRandom
from mien.nn.distillation.teacher import Teacher
from mien.nn.training.pixel_loader import to_tensor
from mien.nn.training.sampler import step_seed

_PURPOSE = 11  # of `step_seed`: other numbers than those of steps
_BATCH = 256


class AugmentedViews:
    """`count` fixed augmented views of some rows of packed pixels; `boost` (n,) as `Augmentation` takes it."""

    def __init__(
        self,
        count: int,
        augment: Augmentation,
        pixels: PixelRows,
        rows: NDArray[np.int64],
        boost: Tensor,
        device: torch.device,
    ) -> None:
        self.count = count
        self.augment, self.pixels, self.rows, self.boost, self.device = augment, pixels, rows, boost, device
        self._tables: dict[int, tuple[torch.Generator, list[Tensor]]] = {}

    def of_epoch(self, epoch: int) -> int:
        """The view that an epoch shows."""
        return epoch % self.count

    def uniform(self, view: int, positions: NDArray[np.int64]) -> ViewRandom:
        """The view's numbers for images at `positions` of `rows`."""
        if view not in self._tables:
            # One view at a time is in use: the others' tables would only fill memory.
            self._tables = {view: (torch.Generator().manual_seed(step_seed(0, view, _PURPOSE)), [])}
        generator, tables = self._tables[view]
        chosen = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        return ViewRandom(generator, len(self.rows), slice(None), self.device, tables, chosen)

    def images(self, view: int, positions: NDArray[np.int64]) -> Tensor:
        """Augmented images (b, c, s, s) of a view."""
        x = to_tensor(self.pixels, self.rows[positions], self.device)
        return self.augment(x, self.uniform(view, positions), self.boost[positions])


class TeacherBank:
    """Log-probabilities (n, 7) of each view, read from `folder` or computed by `teacher` and written there."""

    def __init__(self, views: AugmentedViews, folder: Path, teacher: Callable[[], Teacher]) -> None:
        self.views, self.folder = views, folder
        self._make_teacher = teacher
        self._teacher: Teacher | None = None  # made when a view is missing: networks need memory
        self._current: tuple[int, Tensor] | None = None

    def log_probabilities(self, view: int, positions: NDArray[np.int64]) -> Tensor:
        """Log-probabilities (b, 7) of the images at `positions`, on the device."""
        if self._current is None or self._current[0] != view:
            self._current = (view, torch.from_numpy(self._read_or_compute(view)).to(self.views.device))
        chosen = torch.from_numpy(np.asarray(positions, dtype=np.int64)).to(self.views.device)
        return self._current[1][chosen]

    def _read_or_compute(self, view: int) -> NDArray[np.float32]:
        n = len(self.views.rows)
        values = read_view(self.folder, view, (n, N_CLASSES))
        if values is None:
            with computing_view(self.folder, view):  # students that are trained side by side need the same views
                values = read_view(self.folder, view, (n, N_CLASSES))
                return self._compute(view, n) if values is None else values
        return values

    def _compute(self, view: int, n: int) -> NDArray[np.float32]:
        if self._teacher is None:
            self._teacher = self._make_teacher()
        out = np.empty((n, N_CLASSES), dtype=np.float32)
        with meter(f"teacher: view {view + 1} of {self.views.count}", n) as progress:
            for start in range(0, n, _BATCH):
                positions = np.arange(start, min(n, start + _BATCH))
                out[positions] = self._teacher(self.views.images(view, positions)).float().cpu().numpy()
                progress.advance(len(positions))
        write_view(self.folder, view, out)
        return out
