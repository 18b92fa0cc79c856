"""From one face's logits over time to the label that is shown, or to none.

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
    2. A label is *wanted*: the likeliest one where it leads the shown label by `hysteresis` and reaches its
       threshold; else the shown one while it stays above its threshold less `release`; else none. Where none is
       shown, the likeliest one that reaches its threshold.
    3. What is wanted without a break for `dwell` seconds is shown. Where the wanted label keeps changing, the shown
       one is given up `hold` seconds (never sooner than `dwell`) after it was last wanted. The first frame shows
       what it wants at once.

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
        self._shown: int | None = None
        self._wanted: int | None = None  # what is wanted in place of the shown label
        self._wanted_since = self._lost_since = 0.0
        self._pending = False

    def update(self, logits: NDArray[np.floating], time_s: float) -> tuple[Floats, str | None]:
        """Smoothed probabilities (7,) and the label, None while unsure; times must not fall."""
        values = np.asarray(logits, np.float64)
        z = self._filter(values - values.mean(), time_s)
        p = np.exp(z - z.max())
        p /= p.sum()
        wanted = self._want(p)
        if self._started:
            self._decide(wanted, time_s)
        else:
            self._started, self._shown = True, wanted
        return p, None if self._shown is None else LABELS[self._shown]

    def _want(self, p: Floats) -> int | None:
        """What these probabilities say, given what is shown."""
        best = int(p.argmax())
        reached = p[best] >= self.thresholds[best]
        shown = self._shown
        if shown is None:
            return best if reached else None
        if best != shown and reached and p[best] - p[shown] >= self.rules.hysteresis:
            return best
        return shown if p[shown] >= self.thresholds[shown] - self.rules.release else None

    def _decide(self, wanted: int | None, time_s: float) -> None:
        """Show what has been wanted for long enough."""
        if wanted == self._shown:
            self._pending = False
            return
        if not self._pending:
            self._pending, self._wanted, self._wanted_since, self._lost_since = True, wanted, time_s, time_s
        elif wanted != self._wanted:
            self._wanted, self._wanted_since = wanted, time_s
        if time_s - self._wanted_since >= self.rules.dwell:
            self._shown, self._pending = wanted, False
        elif time_s - self._lost_since >= max(self.rules.hold, self.rules.dwell) and self._shown is not None:
            # The wanted label stays pending: it is shown once it has lasted.
            self._shown, self._lost_since = None, time_s
