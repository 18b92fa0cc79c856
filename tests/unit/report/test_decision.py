"""What the report says of the criterion that decided."""

from __future__ import annotations

from mien.evaluate.selection import SCORED, SLACK
from mien.report.decision import _SETTLED_BY


def test_every_criterion_of_a_selection_has_its_sentence():
    assert set(_SETTLED_BY) == {*SCORED, *SLACK, "nll", "stability over seeds"}
