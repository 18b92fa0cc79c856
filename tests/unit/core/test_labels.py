"""Label numbers of the data sets, as their owners publish them."""

import pytest

from mien.core.errors import InputError
from mien.core.labels import FER2013, FERPLUS, INDEX, LABELS, parse_label, parse_or_drop


def test_the_seven_classes_in_their_order():
    assert LABELS == ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert [INDEX[name] for name in LABELS] == list(range(7))


def test_fer2013_numbers():
    assert [FER2013[i] for i in range(7)] == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


def test_ferplus_columns_in_order():
    assert list(FERPLUS) == [
        "neutral",
        "happiness",
        "surprise",
        "sadness",
        "anger",
        "disgust",
        "fear",
        "contempt",
        "unknown",
        "NF",
    ]
    assert {v for v in FERPLUS.values() if v} == set(LABELS)


def test_aliases_and_the_nearest_name():
    assert parse_label(" Happiness ") == "happy"
    with pytest.raises(InputError, match="Did you mean 'surprise"):
        parse_label("surprize")


@pytest.mark.parametrize("text", ["", " ", "none", "None", "NaN", "null", "n/a", "-"])
def test_a_missing_label_is_never_a_class(text):
    assert parse_or_drop(text, frozenset()) == (None, "no_label")
    with pytest.raises(InputError):
        parse_label(text)


def test_labels_that_are_no_class_are_dropped_by_name_alone():
    assert parse_or_drop("Contempt ", frozenset({"contempt"})) == (None, "contempt")
    assert parse_or_drop("joy", frozenset({"contempt"})) == ("happy", "")
    with pytest.raises(InputError, match=r"'Contempt' is none of the seven classes.*--drop-labels 'contempt'"):
        parse_or_drop("Contempt", frozenset({"unsure"}))
