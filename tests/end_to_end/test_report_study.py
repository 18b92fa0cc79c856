"""The study `report` on the runs of a small study: every table of the earlier report is filled, no cell is blank."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tomllib

import pytest

from helpers import documents, faces
from mien.core.config.study import load_study, shipped_studies
from mien.study.runner import run_study

REPORT = shipped_studies() / "report.toml"


@pytest.fixture(scope="module")
def shrunken(small_study, tmp_path_factory):
    """The small study with given weights and the earlier report's figures; its two runs are of one network."""
    root = tmp_path_factory.mktemp("report") / "out"
    shutil.copytree(small_study, root)
    study = load_study(faces.study_file(root.parent / "small.toml"))
    asked = {
        "ensemble": study.ensemble.model_copy(update={"fixed": ("arc=0.7,plain=0.3",), "pools": ("probability",)}),
        "evaluate": study.evaluate.model_copy(update={"corruptions": False}),
        "earlier": load_study(REPORT).earlier,
        "student": None,
    }
    run_study(study.model_copy(update=asked), root, again=True)
    return root


@pytest.fixture(scope="module")
def page(shrunken):
    return documents.html_text(shrunken / "report" / "index.html")


def rows(shrunken, table):
    return list(csv.DictReader((shrunken / "report" / "tables" / f"{table}.csv").read_text().splitlines()))


TABLES = {  # of the earlier report, and the columns that it has
    "per-class-f1": {"class", "F1"},
    "class-distribution": {"class", "train", "test", "total", "share (%)"},
    "single-models": {"model", "accuracy", "macro-F1", "minority-F1", "ECE", "note"},
    "pair-on-test": {"ensemble", "weights", "macro-F1", "difference in macro-F1", "minority-F1", "ECE", "comment"},
    "variants": {"run", "network", "changed", "accuracy", "macro-F1", "minority-F1", "source"},
    "reliability-metrics": {"model", "accuracy", "macro-F1", "ECE", "Brier", "NLL", "temperature", "note"},
    "size-and-latency": {"model", "parameters (M)", "weights (MB)", "median latency (ms)", "members run"},
    "comparison": {"model", "macro-F1", "minority-F1", "ECE", "latency (ms)", "comment"},
    "given-weights": {"ensemble", "weights", "temperature", "accuracy", "macro-F1", "ECE before", "ECE after"},
}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_of_the_earlier_report_is_there_and_filled(shrunken, table):
    found = rows(shrunken, table)
    assert found
    assert TABLES[table] <= set(found[0])
    assert all(cell.strip() for row in found for name, cell in row.items() if not name.endswith((" low", " high")))


def test_no_cell_is_blank_and_nothing_is_said_to_be_missing(shrunken, page):
    assert json.loads((shrunken / "report" / "blanks.json").read_text()) == {"blanks": []}
    assert not documents.FORBIDDEN.findall(page)


def test_figures_of_the_appendix_are_there(shrunken):
    html = (shrunken / "report" / "index.html").read_text()
    wanted = {
        "composition",
        "sources-by-split",
        "training-curves",
        "class-curves",
        "single-against-ensemble",
        "class-f1",
        "confusions",
        "reliability",
        "temperature-sweep",
    }
    assert wanted <= set(re.findall(r'<figure id="([^"]+)"', html))


def test_given_weights_are_one_more_candidate(shrunken):
    selected = json.loads((shrunken / "ensembles" / "selected.json").read_text())
    assert set(selected["candidates"]) == {"arc", "plain", "arc+plain.probability", "arc+plain.probability.70-30"}
    given, own = rows(shrunken, "given-weights")
    assert (given["weighting"], given["weights"]) == ("fixed", "0.70 / 0.30")
    assert own["weighting"] in ("equal", "nll")


def test_a_network_that_was_trained_again_stands_beside_its_first_run_with_what_was_changed(shrunken, page):
    study = json.loads((shrunken / "study.json").read_text())
    (entry,) = study["variants"]
    assert (entry["first"], entry["name"]) == ("arc", "plain")
    assert entry["differs"] == {"head": ["linear", "arcface"]}
    test = {t["name"]: t["test"] for t in study["teachers"]}
    less = test["plain"]["macro_f1"] - test["arc"]["macro_f1"]
    assert entry["delta"]["macro_f1"] == pytest.approx(less, abs=1e-9)
    assert "plain differs from arc in head" in page


def test_the_earlier_report_is_told_which_of_its_figures_cannot_be_true(shrunken, page):
    found = rows(shrunken, "earlier-figures")
    false = [row["figure"] for row in found if row["verdict"] == "cannot be true"]
    assert "mean confidence of RN18 + B3 (0.7/0.3), from its ECE at two temperatures" in false
    assert "EfficientNet-B3 as the best single model by macro-F1" in false
    assert {"ECE of EfficientNet-B3", "ECE of ConvNeXt-Tiny", "minority classes of train (%)"} <= set(false)
    assert sum("temperature of" in row["figure"] for row in found if row["verdict"] == "not shown") == 4
    assert f"{len(false)} figures of the Teacher Model Training Report of 11 October 2025 cannot be true" in page


def test_the_shipped_study_has_the_members_of_the_earlier_report():
    study = tomllib.loads(REPORT.read_text(encoding="utf-8"))
    teachers = {t["name"]: t for t in study["teachers"]}
    assert {t["backbone"] for t in teachers.values()} == {
        "resnet18",
        "resnet50",
        "efficientnet_b3",
        "convnext_tiny",
        "vit_tiny",
        "vit_small",
        "cnn",
    }
    keys = ("warmup_epochs", "plain_logits_epochs", "freeze_backbone_epochs")
    for name in ("vit_tiny", "vit_small"):
        assert [teachers[name].get(k, 0) for k in keys] == [2, 3, 0]
        assert [teachers[f"{name}_revisit"][k] for k in keys] == [6, 6, 2]
        rest = [
            {k: v for k, v in teachers[n].items() if k not in (*keys, "name", "arcface_warmup_epochs")}
            for n in (name, f"{name}_revisit")
        ]
        assert rest[0] == rest[1]
    assert study["ensemble"]["fixed"] == ["resnet18=0.7,efficientnet_b3=0.3"]
