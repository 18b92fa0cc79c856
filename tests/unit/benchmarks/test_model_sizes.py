"""The figure of benchmarks/model_sizes.py shows what it was given."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from model_sizes import drawn


def test_the_figure_joins_the_precisions_of_each_model():
    given = {"large": {"fp32": (4.0, 0.86), "int8": (3.0, 0.85)}, "small": {"fp32": (1.0, 0.7), "int8": (0.9, 0.69)}}
    chart = drawn(given)
    (axis,) = chart.figure.axes
    lines = [list(map(tuple, line.get_xydata().tolist())) for line in axis.get_lines()]
    for points in given.values():
        assert list(points.values()) in lines
        assert all([point] in lines for point in points.values())
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["large", "small", "fp32", "int8"]
