"""A study says whether its figures lie inside the ranges that its file expects."""

from __future__ import annotations

import pytest

from mien.core.config.study import StudyConfig, load_study, shipped_studies
from mien.core.errors import ConfigError
from mien.evaluate.expected import compare_expected, describe_expected

TEST = {"accuracy": 0.8, "macro_f1": 0.7, "minority_f1": 0.5, "ece": 0.02, "nll": 0.9}
DOCUMENT = {
    "selected": {"name": "pool"},
    "ensembles": [{"name": "other", "test": dict.fromkeys(TEST, 0.0)}, {"name": "pool", "test": TEST}],
    "student": {"test": TEST | {"accuracy": 0.6}, "retention_macro_f1": 0.96},
}


def test_figures_are_the_selected_models_and_the_students():
    expected = {
        "selected.accuracy": (0.8, 0.9),
        "student.accuracy": (0.61, 0.7),
        "student.retention_macro_f1": (0.95, 1.0),
    }
    rows = compare_expected(DOCUMENT, expected)
    assert [(row["value"], row["inside"]) for row in rows] == [(0.8, True), (0.6, False), (0.96, True)]
    assert describe_expected(rows)[1] == "student.accuracy 0.600: OUTSIDE the expected 0.610 to 0.700"


def test_a_study_without_a_student_has_none_of_its_figures():
    rows = compare_expected(DOCUMENT | {"student": None}, {"student.accuracy": (0, 1), "selected.nll": (0, 1)})
    assert [row["figure"] for row in rows] == ["selected.nll"]


@pytest.mark.parametrize(
    ("expected", "text"), [({"student.acuracy": [0, 1]}, "accuracy"), ({"student.nll": [2, 1]}, "empty")]
)
def test_what_cannot_be_expected_is_named(expected, text):
    with pytest.raises(ConfigError, match=text):
        StudyConfig.parse(
            {"name": "a", "index": {"source": ["synthetic=70"]}, "teachers": [{"name": "a"}], "expected": expected},
            where="here",
        )


def test_every_shipped_study_expects_something():
    for path in sorted(shipped_studies().glob("*.toml")):
        assert load_study(path).expected, path
