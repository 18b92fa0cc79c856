"""How models hold on other pictures than clean test ones: corrupted, of a group, of another source."""

from __future__ import annotations

from typing import Any

from mien.report import figures
from mien.report.blocks import Block, Figure, Section, Table
from mien.report.study_view import chosen_of, fixed, models_of, with_ci

WHAT = {
    "blur": "blur", "noise": "noise", "jpeg": "JPEG", "low_light": "low light", "occlude_eyes": "eyes covered", "occlude_mouth": "mouth covered",
    "low_resolution": "low resolution", "rotation": "rotation",
}  # fmt: skip


def section(study: dict[str, Any]) -> Section:
    """Corruptions, groups and other sources of all models that were judged so; empty where none was."""
    best = next(e for e in study["ensembles"] if e["name"] == study["selected"]["best_single"])
    found = {m["name"]: m for m in (chosen_of(study), best, *([study["student"]] if study["student"] else []))}
    return Section("Elsewhere", [*_corruptions(list(found.values())), *_groups(list(found.values())), *_transfers(models_of(study))])  # fmt: skip


def _corruptions(models: list[dict[str, Any]]) -> list[Block]:
    models = [m for m in models if m["corruptions"]]
    if not models:
        return []
    rows = []
    for name in models[0]["corruptions"]:
        for m in models:
            levels, last = m["corruptions"][name], m["corruptions"][name][-1]
            change = last["change"]["accuracy"]
            cells = [f"{level['accuracy']:.3f}" for level in levels]
            cells.append(f"{change['value']:+.3f} [{change['ci95'][0]:+.3f}, {change['ci95'][1]:+.3f}]")
            cells += [fixed(last[key]) for key in ("macro_f1", "ece", "mean_confidence")]
            rows.append((WHAT.get(name, name), m["name"], *cells))
    head = ("corruption", "model", *(f"accuracy at {level['strength']}" for level in models[0]["corruptions"]["blur"]), "change at the strongest", "its macro-F1", "ECE", "mean confidence")  # fmt: skip
    return [
        Figure("Accuracy on corrupted test pictures over strength (0: as they are), with 95 % intervals of the change", figures.degradations({m["name"]: m["corruptions"] for m in models}, WHAT), "Falling lines, a panel a corruption"),
        Table("Corrupted test pictures, five strengths; changes from the same pictures unharmed, paired", head, tuple(rows)),
    ]  # fmt: skip


def _groups(models: list[dict[str, Any]]) -> list[Block]:
    blocks: list[Block] = []
    for attribute in sorted({name for m in models for name in m["groups"]}):
        rows = []
        for m in models:
            for value, score in m["groups"].get(attribute, {"groups": {}})["groups"].items():
                few = "accuracy" not in score
                cells = ["too few"] * 3 if few else [with_ci(score, k) for k in ("accuracy", "macro_f1_present", "ece")]
                rows.append((value, m["name"], f"{score['n']:,}", *cells))
        gaps = "; ".join(f"{m['name']} {m['groups'][attribute]['accuracy_gap']:.3f}" for m in models if attribute in m["groups"] and m["groups"][attribute]["accuracy_gap"] is not None)  # fmt: skip
        rows.sort(key=lambda row: row[0])
        blocks.append(Table(f"Test by {attribute}", (attribute, "model", "n", "accuracy", "macro-F1", "ECE"), tuple(rows), note=f"Macro-F1 is the mean over the classes that a group has. Largest difference in accuracy between two groups: {gaps or 'not known'}."))  # fmt: skip
    return blocks


def _transfers(models: list[dict[str, Any]]) -> list[Block]:
    rows = tuple(
        (f"{', '.join(t['on_sources'])} ({t['on'][:8]})", m["name"], f"{t['test']['n']:,}", f"{sum(t['left_out'].values()):,}", *(with_ci(t["test"], k) for k in ("accuracy", "macro_f1", "ece")))
        for m in models for t in m["transfer"]
    )  # fmt: skip
    if not rows:
        return []
    return [Table("On other sources' test", ("sources (index)", "model", "n", "left out", "accuracy", "macro-F1", "ECE"), rows, note="Left out: pictures that the model may have seen, or that look like such.")]  # fmt: skip
