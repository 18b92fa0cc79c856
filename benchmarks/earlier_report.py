"""Which figures of the earlier report, as studies/report.toml has them, contradict each other.

    python benchmarks/earlier_report.py --out docs/results/earlier_report.json

Each row of `checks` is a figure, what the report's other figures allow, and why (`mien.evaluate.published`). `bounds`
are the ranges of mean confidence that an accuracy and an ECE allow, for the pair whose two errors of calibration cannot
both be right.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from mien.core.config.study import load_study, shipped_studies
from mien.evaluate.published import check_published, confidence_range, largest_move

PAIR = "RN18 + B3 (0.7/0.3)"


def main() -> None:
    """Check the figures and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    report = load_study(shipped_studies() / "report.toml").earlier
    assert report is not None
    first, second = (s for s in report.scores if s.model == PAIR)
    both = [
        {
            "temperature": s.temperature,
            "accuracy": s.accuracy,
            "ece": s.ece,
            "confidence": confidence_range(s.accuracy or 0, s.ece or 0),
        }
        for s in (first, second)
    ]
    document = {
        "command": shlex.join(["python", *sys.argv]),
        "title": report.title,
        "bounds": {"at": both, "largest_move": largest_move(both[0]["temperature"], both[1]["temperature"])},
        "checks": check_published(report),
    }
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
