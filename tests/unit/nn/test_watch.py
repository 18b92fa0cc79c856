"""What a history says: the best epoch, a collapse, exhausted patience."""

from __future__ import annotations

from mien.core.artifacts.run import best_epoch
from mien.nn.training.monitoring import collapse, exhausted


def history(*scores, every=1):
    return [
        {"epoch": i, "step": 10 * i, **({"val": {"macro_f1": scores[i // every - 1]}} if i % every == 0 else {})}
        for i in range(1, every * len(scores) + 1)
    ]


def test_the_first_of_equals_is_the_best():
    assert best_epoch(history(0.2, 0.5, 0.5, 0.1))["epoch"] == 2
    assert best_epoch(history(0.2, 0.5, 0.4, every=3))["epoch"] == 6


def test_a_collapse_is_a_fall_by_three_tenths_from_above_chance():
    assert collapse(history(0.5, 0.36)) is None
    found = collapse(history(0.2, 0.5, 0.34))
    assert found["step"] == 30
    assert "from 0.500 (epoch 2) to 0.340" in found["text"]
    assert collapse(history(0.19, 0.05)) is None
    assert collapse(history(0.5)) is None
    assert collapse(history(0.5, 0.3, 0.6)) is None  # the last look counts


def test_patience():
    assert not exhausted(history(0.1, 0.2, 0.3), 1)
    assert exhausted(history(0.1, 0.3, 0.2), 1)
    assert not exhausted(history(0.3, 0.2), 2)
    assert exhausted(history(0.3, 0.2, 0.3), 2)
    assert not exhausted(history(0.3, 0.2, 0.1), 0)
