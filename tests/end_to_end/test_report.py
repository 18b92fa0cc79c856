"""A report in four formats: the same numbers, each with its source; nothing empty, nothing asked of a network."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest

from helpers import documents, faces
from helpers.shared import once
from mien.cli import run
from mien.core.labels import LABELS
from mien.report.compose import compose
from mien.report.pdf import to_pdf, to_typst
from mien.stages import report as stage

pytestmark = pytest.mark.slow

FORMATS = "html,docx,pdf,md"
FIXED = "resnet18=0.7,cnn=0.3"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Ensembles of three imported models, one of them a transformer, judged on test; no network, no index."""
    return once(tmp_path_factory, "imported", import_and_join) / "ens"


def import_and_join(root):
    """The three models, joined with a fixed pair beside, and judged."""
    truth, y = faces.simulated(1400, seed=5, skill=2.0)
    ids = np.array([f"face_{i:04d}.png" for i in range(1400)])
    splits = np.array(["val"] * 300 + ["calib"] * 700 + ["test"] * 400)
    for seed, backbone in enumerate(("resnet18", "cnn", "vit_tiny")):
        z = truth + np.random.default_rng(seed).normal(0, 1 + seed / 2, truth.shape)
        file, out = root / f"{backbone}.npz", root / backbone
        np.savez(file, image_id=ids, label=y, split=splits, logits=z, classes=np.array(LABELS))
        flags = ["--label-numbers", "mien", "--kind", "logits", "--backbone", backbone]
        assert run(["predictions", "import", str(file), "--out", str(out), *flags]) == 0
        assert run(["calibrate", str(out), "--resamples", "40"]) == 0
    runs = [str(root / b) for b in ("resnet18", "cnn", "vit_tiny")]
    fixed = ["--resamples", "100", "--fixed", FIXED]
    assert run(["ensemble", *runs, "--out", str(root / "ens"), *fixed]) == 0
    assert run(["evaluate", str(root / "ens"), "--all", "--resamples", "100"]) == 0


# Tests that share what is made once stay together.
IMPORTED = pytest.param("imported", marks=pytest.mark.xdist_group("imported"))
OF_STUDY = pytest.param("study", marks=[pytest.mark.trains, pytest.mark.xdist_group("small_study")])


@pytest.fixture(scope="module", params=[IMPORTED, OF_STUDY])
def reported(request, tmp_path_factory):
    """A folder with its report in all formats."""
    if request.param == "imported":
        root = request.getfixturevalue("imported")
    else:
        root = tmp_path_factory.mktemp("reported") / "out"
        shutil.copytree(request.getfixturevalue("small_study"), root)
    assert run(["report", str(root), "--format", FORMATS]) == 0
    return root


@pytest.fixture(scope="module")
def texts(reported):
    """What a reader sees in each format."""
    report = reported / "report"
    return {
        "html": documents.html_text(report / "index.html"),
        "md": documents.markdown_text(report / "report.md"),
        "docx": documents.docx_text(report / "report.docx"),
        "pdf": documents.typst_text(to_typst(compose(stage._collect(reported)))),
    }


def test_all_formats_carry_the_same_numbers(reported, texts):
    found = {kind: Counter(documents.DECIMAL.findall(text)) for kind, text in texts.items()}
    assert len(found["html"]) > 100
    for kind in ("md", "docx", "pdf"):
        assert found[kind] == found["html"], kind
    if shutil.which("pdftotext"):
        made = subprocess.run(
            ["pdftotext", "-layout", str(reported / "report" / "report.pdf"), "-"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert not Counter(found["html"]) - Counter(documents.DECIMAL.findall(made))


def test_every_number_is_the_value_at_its_path(reported):
    entries = json.loads((reported / "report" / "numbers.json").read_text())["numbers"]
    assert len(entries) > 200
    shown = Counter(
        re.findall(
            r'<data value="[^"]*" title="[^"]*">([^<]*)</data>', (reported / "report" / "index.html").read_text()
        )
    )
    assert shown == Counter(entry["text"] for entry in entries)
    for entry in entries:
        values = [documents.resolve(reported, s["file"], s["path"]) for s in entry["sources"]]
        if entry["operation"] == "count":
            values = [1.0] * len(values)
        expected = documents.rounded([float(v) for v in values], entry)
        assert entry["text"] == expected or float(expected) == 0 == float(entry["text"]), entry


def test_no_format_shows_what_is_missing_as_if_it_were_there(reported, texts):
    for kind, text in texts.items():
        assert not documents.FORBIDDEN.findall(text), kind
        assert not re.findall(r"^\s*[–-]\s*$", text, re.MULTILINE), kind
    blanks = json.loads((reported / "report" / "blanks.json").read_text())["blanks"]
    page = texts["html"]
    for blank in blanks:
        assert blank["text"] in page
        assert blank["command"].startswith("mien ")


def test_a_page_asks_for_nothing_and_is_small(reported):
    path = reported / "report" / "index.html"
    page = path.read_text()
    assert path.stat().st_size < 5_000_000
    assert not re.findall(r'(?:src|href|action)="(?!data:|#)', page)
    assert not re.findall(r"https?://|url\(|@import|<script|<link|<iframe", page)
    assert "prefers-color-scheme:dark" in page


def test_a_page_can_be_navigated_and_heard(reported):
    page = (reported / "report" / "index.html").read_text()
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
    assert len(re.findall(r'id="([^"]+)"', page)) == len(anchors)
    assert page.count("<figure ") == page.count("<figcaption>") == page.count("<img alt=")
    assert 'alt=""' not in page
    assert page.count("<table>") == page.count("<caption ")
    assert all('scope="' in cell for cell in re.findall(r"<th[ >][^>]*>?", page))
    charts = re.findall(r"<figure id=.*?</figure>", page, re.DOTALL)
    assert all("<details>" in c or "Its numbers: " in c or "contact-sheet" in c[:40] for c in charts)


def test_the_decision_stands_first(reported, texts):
    text = texts["html"]
    chosen = json.loads((reported / "study.json").read_text())["selected"]["name"]
    first = text[text.index("1. The decision") : text.index("2. Selection")]
    for words in (f"Adopted: {chosen}", "Why this one", "How sure is it", "What must not be done with it"):
        assert words in first, words


def test_a_docx_file_has_what_word_processors_know(reported):
    import docx
    from docx.oxml.ns import qn

    file = docx.Document(str(reported / "report" / "report.docx"))
    styles = Counter(p.style.name for p in file.paragraphs)
    page = (reported / "report" / "index.html").read_text()
    assert styles["Heading 1"] >= page.count("<section ")
    assert styles["Caption"] == page.count("<caption ") + page.count("<figcaption>")
    fields = [f.get(qn("w:instr")) for f in file.element.body.iter(qn("w:fldSimple"))]
    assert Counter(f.split()[1] for f in fields) == {"Table": len(file.tables), "Figure": page.count("<figcaption>")}
    for table in file.tables:
        assert table.rows[0]._tr.trPr.find(qn("w:tblHeader")) is not None
    assert all(shape._inline.docPr.get("descr") for shape in file.inline_shapes)
    assert len(file.inline_shapes) == page.count("<figcaption>")


def test_pdf_bytes_are_the_same_each_time(reported):
    again = to_pdf(compose(stage._collect(reported)))
    assert again == (reported / "report" / "report.pdf").read_bytes()
    assert again.startswith(b"%PDF-")


def test_every_table_is_there_as_csv(reported):
    report = reported / "report"
    tables = {path.stem for path in (report / "tables").glob("*.csv")}
    assert tables == set(re.findall(r'<caption id="([^"]+)"', (report / "index.html").read_text()))
    study = json.loads((reported / "study.json").read_text())
    rows = list(csv.DictReader((report / "tables" / "single-models.csv").read_text().splitlines()))
    for row, model in zip(rows, study["teachers"], strict=False):
        assert float(row["macro-F1"]) == pytest.approx(model["test"]["macro_f1"], abs=5e-4)
        assert float(row["macro-F1 low"]) == pytest.approx(model["test"]["ci95"]["macro_f1"][0], abs=5e-4)


@pytest.mark.xdist_group("imported")
def test_hybrids_stand_beside_their_cnns(imported):
    assert run(["report", str(imported)]) == 0
    text = documents.html_text(imported / "report" / "index.html")
    study = json.loads((imported / "study.json").read_text())
    assert any(e["kind"] == "hybrid" for e in study["ensembles"])
    assert re.search(r"resnet18\+cnn\+vit_tiny\.logit (over-smooths|does not over-smooth)", text)
    from mien.core.artifacts.predictions import read_predictions

    for e in study["ensembles"]:
        logits = read_predictions(imported / e["name"] / "predictions" / "val.parquet").logits
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        entropy = [-sum(x * np.log(x) for x in row if x > 0) for row in p]
        assert e["mean_entropy"] == pytest.approx(np.mean(entropy), rel=1e-9)
        counts = e["test"]["confusion"]
        recalls = [counts[i][i] / sum(counts[i]) for i in (LABELS.index(n) for n in ("disgust", "fear", "sad"))]
        assert e["minority_recall"] == pytest.approx(np.mean(recalls), rel=1e-12)


def test_what_cannot_be_read_is_named_and_the_rest_is_written(small_study, tmp_path, capsys):
    root = tmp_path / "out"
    shutil.copytree(small_study, root)
    (root / "teachers" / "arc" / "metrics.jsonl").write_text("{broken")
    (root / "teachers" / "plain" / "evaluation.json").write_text('{"format": 99}')
    (root / "index" / "provenance.json").unlink()
    assert run(["report", str(root), "--format", "html,md"]) == 0
    said = capsys.readouterr().err
    text = documents.html_text(root / "report" / "index.html")
    for name in ("teachers/arc/metrics.jsonl", "teachers/plain/evaluation.json", "index/provenance.json"):
        assert name in said
        assert re.search(rf"{re.escape(name)} is left out of this report\. .*\w", text), name
    assert "Some files could not be read" in text
    for words in ("Single models on test", "Training curves", "Reliability before and after"):
        assert words in text, words
    blanks = json.loads((root / "report" / "blanks.json").read_text())["blanks"]
    assert [b["where"] for b in blanks] == ["data: table sources, row 1, terms"]


def test_an_unknown_format_names_those_that_there_are(small_study, capsys):
    assert run(["report", str(small_study), "--format", "html,epub"]) == 2
    assert "html, docx, pdf, md" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("resnet18=0.7,vgg=0.3", "names no run 'vgg'"),
        ("resnet18=0.7,cnn=0.7", "positive weights that sum to 1"),
        ("resnet18=1", "at least two runs"),
        ("resnet18=0.5,resnet18=0.5", "at least two runs"),
    ],
)
def test_fixed_weights_are_shares_of_runs_that_are_there(imported, tmp_path, capsys, entry, words):
    runs = [str(imported.parent / name) for name in ("resnet18", "cnn")]
    assert run(["ensemble", *runs, "--out", str(tmp_path / "ens"), "--again", "--fixed", entry]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "ens").exists()


@pytest.mark.xdist_group("imported")
def test_a_fixed_pair_stands_beside_the_searched_one(imported):
    chosen = json.loads((imported / "selected.json").read_text())["candidates"]
    assert {"resnet18+cnn.probability", "resnet18+cnn.probability.70-30"} <= set(chosen)
    ensemble = json.loads((imported / "resnet18+cnn.probability.70-30" / "ensemble.json").read_text())
    assert (ensemble["weighting"], [m["weight"] for m in ensemble["members"]]) == ("fixed", [0.7, 0.3])
