"""The report's section on robustness, groups and other sources."""

from __future__ import annotations

import numpy as np

from helpers import faces
from mien.evaluate.metrics import softmax
from mien.evaluate.shift import by_group
from mien.report.blocks import Table, plain
from mien.report.elsewhere import _groups
from mien.report.node import Node


def test_groups_are_shown_as_they_were_computed():
    """What `by_group` gives goes into a table; a group of too few images does not."""
    logits, labels = faces.simulated(300, seed=2)
    attributes = [{"agreement": "0.9" if i % 3 else "0.5"} if i > 4 else {"agreement": "0.3"} for i in range(300)]
    found = by_group(softmax(logits), labels, attributes)
    model = Node({"name": "m", "groups": found}, "study.json")
    (table,) = [block for block in _groups([model]) if isinstance(block, Table)]
    rows = {plain(cells[0]): cells for cells in table.rows}
    assert set(rows) == {"0.5", "0.9"}
    for value, cells in rows.items():
        inside = np.array([a["agreement"] == value for a in attributes])
        accuracy = (logits.argmax(1) == labels)[inside].mean()
        assert plain(cells[2]) == str(inside.sum())
        assert plain(cells[3]).startswith(f"{accuracy:.3f}")
        assert plain(cells[4]).startswith(f"{found['agreement']['groups'][value]['macro_f1_present']:.3f}")
