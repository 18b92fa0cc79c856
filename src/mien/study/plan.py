"""What a study, sweep or matrix would do, and a confirmation before it removes trainings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mien.core.artifacts.plan import State, ask, unmade
from mien.core.artifacts.run import holds_training
from mien.core.errors import UsageError
from mien.core.progress import confirm


@dataclass(frozen=True)
class Step:
    """One stage on one thing. `product` is what it leaves; calling it again when done is cheap.

    `needs` names the steps before it whose results it takes. `training` is the run's folder, for a training. `judges`:
    it computes in minutes from existing weights, and its result is often the same when it is done again.
    """

    name: str
    product: Path
    run: Callable[[], object]
    needs: tuple[str, ...] = ()
    training: Path | None = None
    judges: bool = False


def outlook(steps: Sequence[Step]) -> dict[str, State]:
    """What a run would do with each step, by its name; what needs something that is not there is not there either.

    Steps come after what they need, and what is needed and not listed is there.
    """
    states: dict[str, State] = {}
    for step in steps:
        states[step.name] = ask(step.run) if _ready(step, states) else unmade(step.training or step.product)
    return states


def _ready(step: Step, states: dict[str, State]) -> bool:
    return all(states.get(name, "there") == "there" for name in step.needs)


def lost_trainings(steps: Sequence[Step]) -> list[Path]:
    """The runs, finished or begun, that were trained with other settings, images or weights than those planned.

    A student whose teachers are only joined and selected anew is not among them: the same may be selected again.
    """
    needed = _needed(steps)
    states = outlook(needed)
    changed: dict[str, bool] = {}
    lost = []
    for step in needed:
        if _ready(step, states):
            changed[step.name] = states[step.name] != "there" and not step.judges
        else:
            changed[step.name] = any(changed.get(name, False) for name in step.needs)
        again = states[step.name] == "made again" and changed[step.name]
        if again and step.training is not None and holds_training(step.training):
            lost.append(step.training)
    return lost


def _needed(steps: Sequence[Step]) -> list[Step]:
    """The trainings among some steps, and all steps that they need, in their order."""
    names: set[str] = set()
    for step in reversed(steps):
        if step.training is not None or step.name in names:
            names |= {step.name, *step.needs}
    return [step for step in steps if step.name in names]


@dataclass
class Permission:
    """Whether trainings may be removed: all (`replace`), or those that a person at the terminal agreed to."""

    replace: bool
    agreed: set[Path] = field(default_factory=set)

    def obtain(self, steps: Sequence[Step]) -> None:
        """Ask for the trainings that these steps would remove; raises `UsageError` without a yes."""
        existing = [step for step in steps if step.training is not None and holds_training(step.training)]
        if self.replace or not existing:
            return
        lost = [folder for folder in lost_trainings(steps) if folder not in self.agreed]
        if not lost:
            return
        names = ", ".join(map(str, lost))
        count = "1 training" if len(lost) == 1 else f"{len(lost)} trainings"
        if not confirm(f"Other settings or images: {count} would be removed and made again: {names}. Go on?"):
            raise UsageError(
                f"{count} of other settings or images would be removed: {names}.",
                rule="Trainings are removed only where that is asked for.",
                fix="Allow it with --replace, name another --out, or go back to the settings that they were made with.",
            )
        self.agreed |= set(lost)

    def run(self, step: Step) -> object:
        """Run one step, whose needs are there, unless it would remove a training without permission."""
        if step.training not in self.agreed:
            self.obtain([dataclasses.replace(step, needs=())])
        return step.run()
