"""A selected ensemble and an index to a student run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mien.core.artifacts import base
from mien.core.artifacts.ensemble import SELECTION, Ensemble, read_ensemble, read_selection
from mien.core.artifacts.index import read_index
from mien.core.artifacts.judged import check_has_weights
from mien.core.artifacts.plan import about_to_make
from mien.core.artifacts.run import KIND, VERSION, Run, check_index, read_run, starting_point, with_stated_terms
from mien.core.config.train import NEUTRAL, DistillConfig
from mien.core.errors import ArtifactError
from mien.core.progress import say
from mien.evaluate.metrics import score_logits


def run(
    config: DistillConfig,
    origin: dict[str, dict[str, Any]],
    teacher: Path,
    index_folder: Path,
    out: Path,
    *,
    replace: bool = False,
) -> Run:
    """Teach a student from the ensemble that `teacher` (a folder of ensembles) selected, or names."""
    index = read_index(index_folder)
    folder, selection_path = _find(teacher)
    ensemble, selection = read_ensemble(folder), read_selection(selection_path)
    mark = base.fingerprint(
        KIND, VERSION, config.model_dump(mode="json", exclude=set(NEUTRAL)),
        {"index": index.content_hash, "teacher": ensemble.weights_hash, "T": str(ensemble.temperature), **starting_point(config, index)},
    )  # fmt: skip
    if base.is_complete(out, mark):
        say(f"{out} is taught already.")
        return with_stated_terms(read_run(out), config, origin)
    about_to_make(out, mark)
    if replace:
        base.make_way(out, mark)
    members = _members(ensemble, folder)
    for member in members:
        check_index(member, index)
    extra = {"teacher": {
        "name": ensemble.name, "weights_hash": ensemble.weights_hash, "selection_hash": selection["hash"],
        "selection": os.path.relpath(selection_path.resolve(), out.resolve()),
    }}  # fmt: skip
    import torch  # noqa: PLC0415

    from mien.nn.inference import load_network  # noqa: PLC0415
    from mien.nn.teacher import ensemble_teacher  # noqa: PLC0415
    from mien.nn.training import train_run  # noqa: PLC0415

    def load(device: torch.device) -> Any:
        networks = [
            (load_network(trained), m.weight, torch.tensor(m.matrix), torch.tensor(m.bias))
            for trained, m in zip(members, ensemble.members, strict=True)
        ]
        return ensemble_teacher(networks, ensemble.pool, ensemble.temperature, device)

    return train_run(config, origin, index, out, mark, score=score_logits, teacher=load, extra=extra)


def _find(teacher: Path) -> tuple[Path, Path]:
    """The ensemble's folder and its selection, from a folder of ensembles or one of them."""
    if (teacher / "ensemble.json").is_file():
        return teacher, teacher.parent / SELECTION
    selection = read_selection(teacher / SELECTION)
    return teacher / selection["name"], teacher / SELECTION


def _members(ensemble: Ensemble, folder: Path) -> list[Run]:
    for member in ensemble.members:
        check_has_weights(folder / member.run, "teach with")
    runs = [read_run(folder / member.run) for member in ensemble.members]
    for trained, member in zip(runs, ensemble.members, strict=True):
        if trained.weights_hash != member.weights_hash:
            raise ArtifactError(
                f"{trained.folder} was trained again after {ensemble.name} was made.", fix="Make the ensembles again."
            )
    return runs
