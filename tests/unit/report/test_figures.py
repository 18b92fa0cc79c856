"""Figures show what they were given."""

from __future__ import annotations

from mien.report.figures import costs


def test_costs_joins_the_precisions_of_each_model():
    given = {"large": {"fp32": (4.0, 0.86), "int8": (3.0, 0.85)}, "small": {"fp32": (1.0, 0.7), "int8": (0.9, 0.69)}}
    chart = costs(given)
    (axis,) = chart.figure.axes
    drawn = [list(map(tuple, line.get_xydata().tolist())) for line in axis.get_lines()]
    for points in given.values():
        assert list(points.values()) in drawn
        assert all([point] in drawn for point in points.values())
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["large", "small", "fp32", "int8"]
    assert costs(given).png() == chart.png()
