"""Are suspects wrong? Planted noise on drawn faces, and FER+'s disagreement on FER2013's.

    python benchmarks/label_noise.py --fer2013 FILE --ferplus FOLDER --out docs/results/label_noise.json

Drawn: a tenth of the train labels is changed at random; precision and recall of the suspects at their cut. Real: `mien
suspects` on FER2013's training faces; AUROC of the suspicion (1 - quality) against images whose FER+ majority is
another class. Work in progress stays in --work and a later call continues it; the suspects in it are those of the
sweeps `noise` and `noise_drawn`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mien.core.artifacts.index import read_index
from mien.core.artifacts.run import environment
from mien.core.artifacts.suspects import Suspects, read_suspects
from mien.core.config import IndexConfig, SuspectsConfig, TrainConfig, resolve
from mien.core.labels import LABELS
from mien.stages import index as build
from mien.stages import suspects as stage

TRAIN = {
    "backbone": "cnn",
    "head": "linear",
    "lr": 2e-3,
    "drop_rate": 0.0,
    "batch_size": 32,
    "crop_min": 0.8,
    "jitter": 0.15,
    "erase": 0.0,
    "eval_every": 4,
    "eval_raw": False,
}
EPOCHS = {"drawn": 24, "fer2013": 10}  # there are five times as many real faces


def suspects_of(index: Path, out: Path, epochs: int) -> tuple[Suspects, dict[str, object]]:
    """Find (or go on finding) suspects of an index."""
    config, origin = resolve(TrainConfig, ("flag", TRAIN | {"epochs": epochs}))
    summary = stage.run(config, origin, SuspectsConfig(), index, out)
    return read_suspects(out, index=read_index(index).content_hash), summary


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive scores higher than a negative (Mann-Whitney), ties counted half."""
    from scipy.stats import rankdata

    ranks, n = rankdata(score), int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def planted(work: Path, count: int) -> dict[str, object]:
    """Drawn faces with a tenth of the train labels changed."""
    build.run(IndexConfig(source=(f"synthetic={count}",), size=48), work / "clean")
    clean, rng = read_index(work / "clean"), np.random.default_rng(0)
    changed = {
        clean.image_ids[r]: LABELS[(clean.labels[r] + rng.integers(1, 7)) % 7]
        for r in clean.rows("train")
        if rng.random() < 0.1
    }
    (work / "noisy.csv").write_text("image_id,label\n" + "".join(f"{i},{n}\n" for i, n in changed.items()))
    build.run(IndexConfig(source=(f"synthetic={count}",), size=48, relabel=work / "noisy.csv"), work / "noisy")
    found, summary = suspects_of(work / "noisy", work / "noisy_suspects", EPOCHS["drawn"])
    wrong = np.array([name in changed for name in found.image_ids.tolist()])
    hit = found.suspect & wrong
    return {
        "rows": len(wrong),
        "planted": int(wrong.sum()),
        "suspects": int(found.suspect.sum()),
        "precision": float(hit.sum() / found.suspect.sum()),
        "recall": float(hit.sum() / wrong.sum()),
        "auroc": auroc(1 - found.quality, wrong),
        "out_of_fold": summary["out_of_fold"],
    }


def real(work: Path, fer2013: Path, ferplus: Path) -> dict[str, object]:
    """FER2013's labels against FER+'s majorities of the same images."""
    common = {"size": 48, "leaks": "drop"}
    build.run(IndexConfig(source=(f"fer2013={fer2013}",), **common), work / "fer2013")
    build.run(IndexConfig(source=(f"ferplus={ferplus}",), **common), work / "ferplus")
    found, summary = suspects_of(work / "fer2013", work / "fer2013_suspects", EPOCHS["fer2013"])
    plus = read_index(work / "ferplus")
    label = dict(zip(plus.image_ids.tolist(), plus.labels.tolist(), strict=True))
    known = np.array([name in label for name in found.image_ids.tolist()])
    theirs = np.array([label.get(name, -1) for name in found.image_ids.tolist()])
    differ = known & (theirs != found.labels)
    rate = float(differ.sum() / known.sum())
    hit = found.suspect & differ
    return {
        "rows": len(known),
        "with_ferplus_label": int(known.sum()),
        "disagreement": rate,
        "suspects": int(found.suspect.sum()),
        "auroc": auroc(1 - found.quality[known], differ[known]),
        "precision": float(hit.sum() / (found.suspect & known).sum()),
        "recall": float(hit.sum() / differ.sum()),
        "suggestion_is_ferplus": float((found.suggested[hit] == theirs[hit]).mean()),
        "out_of_fold": summary["out_of_fold"],
    }


def main() -> None:
    """Run both and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fer2013", type=Path, required=True)
    parser.add_argument("--ferplus", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/label_noise"))
    parser.add_argument("--drawn", type=int, default=7000)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    document = {
        "training": TRAIN,
        "epochs": EPOCHS,
        "drawn": planted(args.work, args.drawn),
        "fer2013": real(args.work, args.fer2013, args.ferplus),
        "environment": environment(),
    }
    print(json.dumps(document, indent=1))
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
