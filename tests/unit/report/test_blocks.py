"""Numbers without a source, empty cells and figures without words do not build."""

from __future__ import annotations

import io

import pytest

from mien.report.blocks import (
    Blank,
    Constant,
    Document,
    Estimate,
    Figure,
    Number,
    Rounding,
    Section,
    Source,
    Table,
    Text,
    plain,
)
from mien.report.csv_tables import to_csv
from mien.report.node import Node, combined, estimate
from mien.report.provenance import blanks, numbers

STUDY = Node({"teachers": [{"f1": 0.77014, "ci95": [0.75, 0.79]}], "by source": {"it's": 12345}}, "study.json")


@pytest.mark.parametrize("words", ["accuracy 0.8", "on 270 images", "+3 points", "(5)", "95 %"])
def test_prose_with_a_figure_that_has_no_source_does_not_build(words):
    with pytest.raises(ValueError, match="without a source"):
        Text(words)
    with pytest.raises(ValueError, match="without a source"):
        Table("t", "caption", ("a", "b"), (("x", words),))


def test_names_code_and_constants_are_no_figures():
    words = ("macro-F1 of ResNet18, `--epochs 8`, ", Constant("95 %", "level"), " intervals")
    assert plain(Text(words).content) == "macro-F1 of ResNet18, --epochs 8, 95 % intervals"


def test_a_number_needs_a_source_and_a_value():
    with pytest.raises(ValueError, match="no source"):
        Number(0.5, ())
    with pytest.raises(ValueError, match="no number"):
        Number(float("nan"), (Source("study.json", "$.x"),))
    with pytest.raises(ValueError, match="command"):
        Blank("not measured", "")


@pytest.mark.parametrize("cell", ["", " ", "–", "-"])
def test_a_table_has_no_empty_cells(cell):
    with pytest.raises(ValueError, match="empty cell"):
        Table("t", "caption", ("a", "b"), (("x", cell),))


def test_rows_have_the_width_of_the_head_and_figures_have_words():
    with pytest.raises(ValueError, match="1 cells under 2 heads"):
        Table("t", "caption", ("a", "b"), (("x",),))
    with pytest.raises(ValueError, match="alternative text"):
        Figure("f", "caption", None, "", None)


def test_two_blocks_have_two_names():
    table = Table("t", "caption", ("a", "b"), (("x", "y"),))
    with pytest.raises(ValueError, match="two blocks"):
        Document("d", "", [Section("s", "S", [table, table])]).numbering()


@pytest.mark.parametrize(
    "value, rounding, text",
    [
        (0.77014, Rounding(3), "0.770"),
        (0.5, Rounding(1, 100), "50.0"),
        (-0.0001, Rounding(3), "0.000"),
        (-0.4, Rounding(3), "-0.400"),
        (0.004, Rounding(2, style="signed"), "+0.00"),
        (1234567, Rounding(0, style="count"), "1,234,567"),
        (0.000012, Rounding(2, style="significant"), "1.2e-05"),
    ],
)
def test_rounding(value, rounding, text):
    assert Number(value, (Source("f", "$"),), rounding).text == text


def test_nodes_know_their_paths():
    f1 = STUDY.at("teachers", 0, "f1")
    assert f1.number().sources == (Source("study.json", "$.teachers[0].f1"),)
    assert STUDY["teachers"].at(-1, "f1").path == "$.teachers[0].f1"
    assert STUDY.at("by source", "it's").path == "$['by source']['it\\'s']"
    assert STUDY.get("absent") is None
    whole = combined("sum", [f1, f1], Rounding(2))
    assert (whole.text, len(whole.sources)) == ("1.54", 2)
    assert plain(estimate(f1, STUDY.at("teachers", 0, "ci95"))) == "0.770 [0.750, 0.790]"


def test_provenance_and_csv_of_a_table():
    found = STUDY.at("teachers", 0)
    cells = estimate(found["f1"], found["ci95"])
    rows = (
        ("a", cells, STUDY.at("by source", "it's").count()),
        ("b", Blank("not measured", "mien x"), found["f1"].number()),
    )
    table = Table("scores", "caption", ("model", "macro-F1", "rows"), rows)
    document = Document("d", "", [Section("s", "S", [table])])
    assert [n["text"] for n in numbers(document)] == ["0.770", "0.750", "0.790", "12,345", "0.770"]
    assert numbers(document)[3]["where"] == "s: table scores, row 1, rows"
    assert blanks(document) == [
        {"where": "s: table scores, row 2, macro-F1", "text": "not measured", "command": "mien x"}
    ]
    assert (
        to_csv(table)
        == "model,macro-F1,macro-F1 low,macro-F1 high,rows\na,0.770,0.750,0.790,12345\nb,not measured,,,0.770\n"
    )
    assert isinstance(cells, Estimate)


def test_a_figure_is_the_same_bytes_each_time_as_vectors_and_as_pixels():
    from PIL import Image

    from mien.report import figures

    scores = {"a": (0.5, 0.4, 0.6), "b": (0.7, 0.6, 0.8)}
    first, second = figures.comparison(scores, "b"), figures.comparison(scores, "b")
    assert first.svg() == second.svg()
    assert first.svg().lstrip().startswith(b"<?xml")
    assert b"<text" not in first.svg()  # letters are outlines: no font is asked for
    width, height = first.figure.get_size_inches()
    assert Image.open(io.BytesIO(first.png(200))).size == (round(width * 200), round(height * 200))
