"""What a training's history says: a collapse, and whether to go on. Pure functions on epochs' lines."""

from __future__ import annotations

from mien.core.artifacts.run import Epoch, TrainingEvent, best_epoch, validated_epochs

COLLAPSE = 0.7  # of the best macro-F1
ABOVE_CHANCE = 0.2  # a macro-F1 that guessing one class (at most .14) or at random does not reach


def collapse(history: list[Epoch]) -> TrainingEvent | None:
    """What happened when the last validation fell under 70 % of the best one before; None if it did not.

    Only a fall from well above chance counts.
    """
    validated = validated_epochs(history)
    if len(validated) < 2:
        return None
    best, last = best_epoch(validated[:-1]), validated[-1]
    high, low = best["val"]["macro_f1"], last["val"]["macro_f1"]
    if high < ABOVE_CHANCE or low >= COLLAPSE * high:
        return None
    return {
        "kind": "collapse of val macro-F1",
        "step": last["step"],
        "epoch": last["epoch"],
        "text": (
            f"val macro-F1 fell from {high:.3f} (epoch {best['epoch']}) to {low:.3f} after step {last['step']} (epoch "
            f"{last['epoch']})"
        ),
    }


def exhausted(history: list[Epoch], patience: int) -> bool:
    """Whether the last `patience` validations brought nothing better."""
    validated = validated_epochs(history)
    return patience > 0 and len(validated) > patience and best_epoch(validated) not in validated[-patience:]
