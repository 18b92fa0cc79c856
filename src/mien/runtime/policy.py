"""One face's logits over time to the label that is shown, or to none.

The live page computes the same; `tests/data/live_traces.json` is replayed by both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.core.config.live import LiveRules
from mien.core.labels import LABELS
from mien.runtime.smooth import Floats, make_filter


def thresholds_of(rules: LiveRules, model: Floats) -> Floats:
    """What each label needs (7,): the rules' or the model's threshold, whichever is higher."""
    return np.maximum(model, [rules.thresholds.get(name, 0.0) for name in LABELS])


class LabelPolicy:
    """The smoothed probabilities of one face and its label, frame by frame.

    1. Logits are centred (their mean is taken off) and filtered over time; softmax gives the probabilities.
    2. Each frame has a *candidate*: the likeliest label where it leads the shown one by `hysteresis` and reaches its
       threshold; else the shown one while it stays above its threshold less `release`; else none. Where none is
       shown, the likeliest one that reaches its threshold.
    3. What is the candidate without a break for `dwell` seconds is shown. Where the candidate keeps changing, the
       shown label is dropped `hold` seconds (never sooner than `dwell`) after it was last the candidate. The first
       frame's candidate is shown at once.

    Parameters
    ----------
    rules
        of `live.json`
    thresholds
        (7,), the probability that each label needs; see `thresholds_of`
    """

    def __init__(self, rules: LiveRules, thresholds: Floats) -> None:
        self.rules, self.thresholds = rules, thresholds
        self._filter = make_filter(rules)
        self._started = False
        self._label: int | None = None
        self._candidate: int | None = None  # what may replace the shown label
        self._candidate_since = self._lost_since = 0.0
        self._pending = False

    def update(self, logits: NDArray[np.floating], time_s: float) -> tuple[Floats, str | None]:
        """Smoothed probabilities (7,) and the label, None while unsure; times must not fall."""
        values = np.asarray(logits, np.float64)
        z = self._filter(values - values.mean(), time_s)
        p = np.exp(z - z.max())
        p /= p.sum()
        candidate = self._candidate_of(p)
        if self._started:
            self._decide(candidate, time_s)
        else:
            self._started, self._label = True, candidate
        return p, None if self._label is None else LABELS[self._label]

    def _candidate_of(self, p: Floats) -> int | None:
        """The candidate by these probabilities, given the shown label."""
        best = int(p.argmax())
        reached = p[best] >= self.thresholds[best]
        current = self._label
        if current is None:
            return best if reached else None
        if best != current and reached and p[best] - p[current] >= self.rules.hysteresis:
            return best
        return current if p[current] >= self.thresholds[current] - self.rules.release else None

    def _decide(self, candidate: int | None, time_s: float) -> None:
        """Show what has been the candidate for long enough."""
        if candidate == self._label:
            self._pending = False
            return
        if not self._pending:
            self._pending, self._candidate, self._candidate_since, self._lost_since = True, candidate, time_s, time_s
        elif candidate != self._candidate:
            self._candidate, self._candidate_since = candidate, time_s
        if time_s - self._candidate_since >= self.rules.dwell:
            self._label, self._pending = candidate, False
        elif time_s - self._lost_since >= max(self.rules.hold, self.rules.dwell) and self._label is not None:
            # The candidate stays pending: it is shown once it has lasted.
            self._label, self._lost_since = None, time_s
