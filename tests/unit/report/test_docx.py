"""Tables of a DOCX: long names of ensembles leave room for the other columns."""

from __future__ import annotations

import io

import docx
from docx.shared import Cm

from mien.report.blocks import Document, Quote, Section, Source, Table
from mien.report.docx import to_docx


def test_a_long_name_breaks_instead_of_taking_the_table():
    name = "convnext_tiny+vit_small_revisit+efficientnet_b3.probability"
    comment = "worse than the best single model by more than chance"
    row = (Quote(name, Source("study.json", "$.name")), comment, comment)
    table = Table("t", "All candidates", ("model", "comment", "note"), (row,))
    data = to_docx(Document("Report", "Subtitle", [Section("s", "Section", [table])]))
    (written,) = docx.Document(io.BytesIO(data)).tables
    widths = [cell.width for cell in written.rows[1].cells]
    assert max(widths) < Cm(8)
    assert written.rows[1].cells[0].text.replace("\u200b", "") == name
