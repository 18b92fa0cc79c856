"""The shipped study `report`, shrunken: fewer members, images and epochs; every table filled, no cell blank."""

from __future__ import annotations

import csv
import json
import re

import pytest

from helpers import documents
from mien.core.config.study import StudyConfig, shipped_studies
from mien.study.runner import run_study

MEMBERS = ("cnn", "vit_tiny", "vit_tiny_revisit")


@pytest.fixture(scope="module")
def shrunken(tmp_path_factory):
    """The study's folder after a short run: three members, each with the small CNN in the place of its network."""
    import tomllib

    study = tomllib.loads((shipped_studies() / "report.toml").read_text(encoding="utf-8"))
    study["index"] |= {"source": ["synthetic=980"], "size": 32}
    less = {"backbone": "cnn", "epochs": 3, "ema_decay": 0.0, "batch_size": 16, "lr": 2e-3}
    study["teachers"] = [t | less for t in study["teachers"] if t["name"] in MEMBERS]
    study["ensemble"] |= {"fixed": ["cnn=0.7,vit_tiny=0.3"], "resamples": 100}
    study["evaluate"] = {"resamples": 100}
    study["calibrate"] = {"resamples": 20}
    root = tmp_path_factory.mktemp("report") / "out"
    run_study(StudyConfig.parse(study, where="report.toml"), root)
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


@pytest.mark.trains
@pytest.mark.parametrize("table", TABLES)
def test_every_table_of_the_earlier_report_is_there_and_filled(shrunken, table):
    found = rows(shrunken, table)
    assert found
    assert TABLES[table] <= set(found[0])
    assert all(cell.strip() for row in found for name, cell in row.items() if not name.endswith((" low", " high")))


@pytest.mark.trains
def test_no_cell_is_blank_and_nothing_is_said_to_be_missing(shrunken, page):
    assert json.loads((shrunken / "report" / "blanks.json").read_text()) == {"blanks": []}
    assert not documents.FORBIDDEN.findall(page)


@pytest.mark.trains
def test_figures_of_the_appendix_are_there(shrunken):
    html = (shrunken / "report" / "index.html").read_text()
    wanted = {
        "composition", "sources-by-split", "training-curves", "class-curves", "single-against-ensemble", "class-f1", "confusions", "reliability",
        "temperature-sweep",
    }  # fmt: skip
    assert wanted <= set(re.findall(r'<figure id="([^"]+)"', html))


@pytest.mark.trains
def test_all_pairs_and_triples_and_the_given_weights_are_candidates(shrunken):
    selected = json.loads((shrunken / "ensembles" / "selected.json").read_text())
    assert set(selected["candidates"]) == {
        *MEMBERS, "vit_tiny+cnn.probability", "vit_tiny_revisit+cnn.probability", "vit_tiny+vit_tiny_revisit.probability",
        "vit_tiny+vit_tiny_revisit+cnn.probability", "cnn+vit_tiny.probability.70-30",
    }  # fmt: skip


@pytest.mark.trains
def test_a_revisit_stands_beside_the_first_run_with_what_was_changed(shrunken, page):
    entries = json.loads((shrunken / "study.json").read_text())["variants"]
    first, revisit = entries
    assert [(e["first"], e["name"]) for e in entries] == [("vit_tiny", "vit_tiny_revisit"), ("vit_tiny", "cnn")]
    changed = {"warmup_epochs": [6, 2], "plain_logits_epochs": [6, 3], "freeze_backbone_epochs": [2, 0]}
    assert changed.items() <= first["differs"].items()
    assert revisit["differs"]["head"] == ["linear", "arcface"]
    study = {t["name"]: t["test"] for t in json.loads((shrunken / "study.json").read_text())["teachers"]}
    less = study["vit_tiny_revisit"]["macro_f1"] - study["vit_tiny"]["macro_f1"]
    assert first["delta"]["macro_f1"] == pytest.approx(less, abs=1e-9)
    assert "vit_tiny_revisit differs from vit_tiny in" in page


@pytest.mark.trains
def test_the_earlier_report_is_told_which_of_its_figures_cannot_be_true(shrunken, page):
    found = rows(shrunken, "earlier-figures")
    false = [row["figure"] for row in found if row["verdict"] == "cannot be true"]
    assert "mean confidence of RN18 + B3 (0.7/0.3), from its ECE at two temperatures" in false
    assert "EfficientNet-B3 as the best single model by macro-F1" in false
    assert {"ECE of EfficientNet-B3", "ECE of ConvNeXt-Tiny", "minority classes of train (%)"} <= set(false)
    assert sum("temperature of" in row["figure"] for row in found if row["verdict"] == "not shown") == 4
    assert f"{len(false)} figures of the Teacher Model Training Report of 11 October 2025 cannot be true" in page


def test_the_shipped_study_has_the_members_of_the_earlier_report():
    import tomllib

    study = tomllib.loads((shipped_studies() / "report.toml").read_text(encoding="utf-8"))
    teachers = {t["name"]: t for t in study["teachers"]}
    assert {t["backbone"] for t in teachers.values()} == {
        "resnet18", "resnet50", "efficientnet_b3", "convnext_tiny", "vit_tiny", "vit_small", "cnn",
    }  # fmt: skip
    keys = ("warmup_epochs", "plain_logits_epochs", "freeze_backbone_epochs")
    for name in ("vit_tiny", "vit_small"):
        assert [teachers[name].get(k, 0) for k in keys] == [2, 3, 0]
        assert [teachers[f"{name}_revisit"][k] for k in keys] == [6, 6, 2]
        rest = [{k: v for k, v in teachers[n].items() if k not in (*keys, "name", "arcface_warmup_epochs")} for n in (name, f"{name}_revisit")]  # fmt: skip
        assert rest[0] == rest[1]
    assert study["ensemble"]["fixed"] == ["resnet18=0.7,efficientnet_b3=0.3"]
