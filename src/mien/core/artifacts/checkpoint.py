"""Weights and the exact state of a training, as safetensors and JSON; no pickles.

`last/state.json` names the tensor file that belongs to it and is replaced atomically: after a kill
either the older or the newer state is whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mien.core.artifacts import base
from mien.core.artifacts.run import WEIGHTS, Epoch, TrainingEvent
from mien.core.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2
SPENT = "seconds.json"


class Progress(TypedDict):
    """How far a training is; `sums` over the epoch (loss, right answers, images), `scaler` that of fp16."""

    step: int
    best: float
    sums: list[float]
    history: list[Epoch]
    events: list[TrainingEvent]
    scaler: dict[str, float]
    precision: str


class State(Progress):
    """`last/state.json`; `tensors` is the file that belongs to it."""

    format: int
    tensors: str


def save_weights(run: Path, state: dict[str, Tensor]) -> None:
    """Write `best.safetensors` crash-safely."""
    _save(run / WEIGHTS, state)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a broken one, or one with NaN, is an `ArtifactError`."""
    from safetensors import SafetensorError  # noqa: PLC0415  (torch is not needed elsewhere in core)
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} holds no readable weights: {error}.") from None
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ArtifactError(
                f"{path}: {name!r} holds NaN or Inf.",
                rule="Weights and training states are finite.",
                fix="Take another file, or remove the run and train again with a lower --lr.",
            )
    return state


def save_state(run: Path, tensors: dict[str, Tensor], progress: Progress, *, seconds: float) -> None:
    """Write the state after `progress["step"]` steps, then drop older ones.

    The `seconds` spent so far lie apart: `last/` holds nothing that a clock decides.
    """
    folder = run / "last"
    name = f"state-{progress['step']}.safetensors"
    _save(folder / name, tensors)
    base.write_json(folder / "state.json", {"format": VERSION, "tensors": name, **progress})
    base.write_json(run / SPENT, {"seconds": seconds})
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def seconds_spent(run: Path) -> float:
    """Training time up to the last save."""
    path = run / SPENT
    return float(base.read_json(path, kind="training time")["seconds"]) if path.is_file() else 0.0


def load_state(run: Path) -> tuple[dict[str, Tensor], State] | None:
    """The latest whole state, None when nothing was saved yet."""
    path = run / "last" / "state.json"
    if not path.is_file():
        return None
    progress: State = base.read_json(path, kind="training state")
    if progress.get("format") != VERSION:
        raise ArtifactError(
            f"{path} has format {progress.get('format')}, this version reads {VERSION}.",
            fix="Remove the run and train again.",
        )
    return load_weights(run / "last" / progress["tensors"]), progress


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors crash-safely.

    safetensors' own `save_file` writes to a random name first, which nobody could remove after a kill.
    """
    from safetensors.torch import save  # noqa: PLC0415

    base.write_bytes(path, save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))
