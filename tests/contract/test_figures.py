"""Published figures are those of the JSON files beside them, rounded; every table of results says where they stand."""

from __future__ import annotations

import ast
import re

import pytest

from helpers import figures as f
from mien.stages import matrix_tables, sweep_summary

TEXT = """
<!-- figures: a.json
best = models[name=b.c]
rows: models[0] | best | -
columns: n | f1, ci | f1 * 100
text: better by {best.f1 - models[0].f1} ({best.n} faces, at least {min models[*].f1})
-->
| model | n | F1 | points |
|---|---|---|---|
| a1 | 1,234 | .41 [.40, .43] | 41 |
| b | 7 | .53 [.50, .56] | 53.0 |
| chance | | .14 | |

It is better by
.12 (7 faces, at least .41).
"""
JSON = {
    "models": [
        {"name": "a", "n": 1234, "f1": 0.4149, "ci": [0.4, 0.43]},
        {"name": "b.c", "n": 7, "f1": 0.5301, "ci": [0.5, 0.56]},
    ]
}


@pytest.fixture
def one_file(monkeypatch):
    monkeypatch.setattr(f, "loaded", {"a.json": JSON}.__getitem__)


def test_every_number_under_a_marker_is_compared_as_it_is_rounded(one_file):
    found = f.figures(TEXT)
    assert [x.written for x in found] == [
        "1,234",
        ".41",
        ".40",
        ".43",
        "41",
        "7",
        ".53",
        ".50",
        ".56",
        "53.0",
        ".12",
        "7",
        ".41",
    ]
    assert all(x.holds for x in found)
    wrong = f.figures(TEXT.replace(".53 [", ".54 [").replace("better by\n.12", "better by\n.11"))
    assert [(x.written, x.rounded) for x in wrong if not x.holds] == [(".54", ".53"), (".11", ".12")]


def test_figures_are_renewed_in_their_style(one_file, monkeypatch):
    text = TEXT.replace("1,234", "9").replace(".40, .43", ".39, .44").replace("53.0", "+99.99")
    assert f.renewed(text) == TEXT.replace("53.0", "+53.01")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rows: models[0] | best | -", "rows: models[0] | best"),
        ("n | f1, ci | f1 * 100", "n | f1, ci"),
        (" | f1, ci |", " | f1 |"),
        ("better by {", "worse by {"),
        ("best = models[name=b.c]", "best = models[name=z]"),
        ("text:", "txt:"),
    ],
)
def test_a_marker_that_does_not_fit_is_an_error(one_file, old, new):
    assert old in TEXT
    with pytest.raises((AssertionError, KeyError, IndexError)):
        f.figures(TEXT.replace(old, new))


def test_a_table_without_a_marker_is_found():
    assert f.unmarked_tables(TEXT) == []
    bare = TEXT[TEXT.index("| model") :]
    assert f.unmarked_tables(bare) == ["| model | n | F1 | points |"]
    assert f.unmarked_tables("<!-- no figures: an example -->\n" + bare) == []


@pytest.mark.parametrize("document", f.DOCUMENTS, ids=lambda p: p.relative_to(f.ROOT).as_posix())
def test_published_figures_are_those_of_their_files(document):
    text = document.read_text(encoding="utf-8")
    assert [f"{x.written} is {x.rounded}: {x.path}" for x in f.figures(text) if not x.holds] == []
    assert f.unmarked_tables(text) == []


@pytest.mark.parametrize("name", sorted(path.stem for path in f.RESULTS.glob("*.md") if path not in f.DOCUMENTS))
def test_tables_that_a_stage_wrote_are_those_of_their_files(name):
    document = f.loaded(f"{name}.json")
    table = sweep_summary.table(document) if "variants" in document else matrix_tables.tables(document)
    assert (f.RESULTS / f"{name}.md").read_text(encoding="utf-8") == table


@pytest.mark.parametrize("path", sorted((f.ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_writes_the_command_that_was_given(path):
    """A constant says what its author once typed, not what made these figures."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            values = [value for key, value in zip(keys, node.values, strict=True) if key == "command"]
            assert not any(isinstance(value, ast.Constant) for value in values), f"{path.name}: a constant command"


def test_the_files_of_results_are_all_named():
    """A JSON that no marker or link names is one that nothing compares."""
    text = "".join(document.read_text(encoding="utf-8") for document in f.DOCUMENTS)
    assert [path.name for path in f.RESULTS.glob("*.json") if path.name not in text] == []


def test_a_result_is_a_page_with_its_headline_first():
    """One finding a page: a headline, the command beside it; all pages are in the list, and links lead somewhere."""
    listed = (f.RESULTS / "README.md").read_text(encoding="utf-8")
    pages = [document for document in f.DOCUMENTS if document.parent == f.RESULTS and document.stem != "README"]
    assert len(pages) > 10
    for page in pages:
        text = page.read_text(encoding="utf-8")
        headline = text.splitlines()[0]
        assert headline.startswith("# "), page.name
        assert f"[{headline[2:]}]({page.name})" in listed
        assert "```sh" in text, page.name


LINKING = [f.ROOT / "README.md", *sorted((f.ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", LINKING, ids=lambda p: p.relative_to(f.ROOT).as_posix())
def test_links_to_files_and_headings_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        if "://" in name or name.startswith("mailto:"):
            continue
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}, target
