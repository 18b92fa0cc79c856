"""All sections in reading order: the decision and its reasons first, the evidence after."""

from __future__ import annotations

from mien.report import calibration, closing, data, decision, deployment, dynamics, earlier, elsewhere, joined, models
from mien.report.blocks import Document, Span, Spans
from mien.report.material import Material, listed
from mien.report.node import counted, named

_SECTIONS = (
    decision.section,
    joined.selection,
    models.classes,
    models.singles,
    joined.ensembles,
    calibration.calibration,
    calibration.answers,
    elsewhere.section,
    deployment.deployment,
    deployment.student,
    dynamics.section,
    models.settings,
    data.section,
    closing.limitations,
    earlier.section,
    closing.reproduction,
)


def compose(material: Material) -> Document:
    """The document of a finished study, or of ensembles alone."""
    parts = [section(material) for section in _SECTIONS]
    title = f"mien: {material.study.value['name']}"
    return Document(title, _subtitle(material), [part for part in parts if part.blocks])


def _subtitle(material: Material) -> Spans:
    study = material.study
    git = study.get("git")
    revision: Spans = ("mien, released",) if git is None else ("mien revision ", git.quote())
    if material.index is None:
        teachers = list(study["teachers"])
        return (
            counted(teachers),
            " models and what can be made of them; " if len(teachers) > 1 else " model; ",
            *revision,
        )
    rows: list[Span | Spans] = [
        (n.count(), " rows of ", named(name, n)) for name, n in material.index["source_rows"].items()
    ]
    return (*listed(rows), "; seed ", study["seed"].number(0), "; ", *revision)
