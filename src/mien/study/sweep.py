"""Runs a sweep: every variant with every seed on one index, then the comparison. What is complete is skipped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mien.core.artifacts.study import close_study, open_study
from mien.core.artifacts.sweep import SweepFolder
from mien.core.config.base import expand
from mien.core.config.judge import PredictConfig
from mien.core.config.sweep import SweepConfig
from mien.core.errors import MienError, TrainingDiverged
from mien.core.progress import say, warn


def run_sweep(sweep: SweepConfig, root: Path, text: str) -> dict[str, Any]:
    """Run a sweep to its comparison and return `sweep.json`; calling it again goes on where it was.

    Seeds come first and variants second, so that an interrupted sweep has whole blocks.
    """
    from mien.stages import compare, index, predict, train

    for source in sweep.index.source:
        expand(source)
    for variant in sweep.variants:
        train.check(sweep.training(variant, sweep.seeds[0])[0])
    fresh = not root.exists()
    if open_study(root, sweep.name, sweep.model_dump(mode="json"), text, kind="sweep"):
        warn(f"{root} was made with other settings; what they touch is made again.")
    folder = SweepFolder(root)
    try:
        index.run(sweep.index, folder.index, replace=True)
    except MienError:
        if fresh:
            close_study(root)
        raise
    plan = [(variant, seed) for seed in sweep.seeds for variant in sweep.variants]
    started, failed = time.perf_counter(), dict[tuple[str, int], str]()
    for number, (variant, seed) in enumerate(plan, 1):
        say(f"[{number}/{len(plan)}] {variant.name}, seed {seed}  ({time.perf_counter() - started:.0f} s so far)")
        config, origin = sweep.training(variant, seed)
        try:
            train.run(config, origin, folder.index, folder.run(variant.name, seed), replace=True)
        except TrainingDiverged as error:
            failed[variant.name, seed] = str(error)
            warn(f"{variant.name}, seed {seed}: {error}")
        else:
            predict.run(folder.run(variant.name, seed), folder.index, "val", PredictConfig())
    return compare.run(sweep, root, failed)
