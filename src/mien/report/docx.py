"""A document as DOCX, with the styles that word processors know: headings, captions, lists, header rows."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime

import docx
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement
from docx.shared import Cm, Emu, Pt, RGBColor
from docx.table import Table as WordTable
from docx.text.paragraph import Paragraph

from mien.report.blocks import (
    Block,
    Code,
    Document,
    Figure,
    Heading,
    Items,
    Quote,
    Span,
    Spans,
    Table,
    Text,
    breakable,
    marked,
    plain,
    spans,
)

DPI = 200
_WIDTH_CM = 17.0  # of the text on A4
_SIZES = (8.5, 7.5, 6.5)  # of letters in tables (pt), the first that fits
_FILLS = {"note": "FFF6E0", "warning": "FDEBEA", "code": "F1F3F5", "strong": "E8F1FB"}
_DATE = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # fixed, so that the bytes depend on the content alone


def to_docx(document: Document) -> bytes:
    """The DOCX file; tables behind figures stand in an appendix."""
    writer = _Writer(document)
    for number, section in enumerate(document.sections, 1):
        writer.heading(f"{number}. {section.title}", 1, section.name)
        for block in section.blocks:
            writer.block(block)
    behind = [f.data for f in document.figures() if isinstance(f.data, Table)]
    if behind:
        writer.heading("Numbers of the figures", 1, "numbers-of-the-figures")
    for table in behind:
        writer.block(table)
    out = io.BytesIO()
    writer.file.save(out)
    return out.getvalue()


class _Writer:
    """The file being written."""

    def __init__(self, document: Document) -> None:
        self.file = docx.Document()
        self.numbering = document.numbering()
        self.bookmarks = 0
        self._page_and_styles()
        core = self.file.core_properties
        core.title, core.author, core.created, core.modified = document.title, "mien", _DATE, _DATE
        self.file.add_heading(document.title, 0)
        self._runs(self.file.add_paragraph(style="Subtitle"), document.subtitle)
        self._contents(document)

    def _page_and_styles(self) -> None:
        page = self.file.sections[0]
        page.page_width, page.page_height = Cm(21), Cm(29.7)
        page.left_margin = page.right_margin = Cm(2)
        page.top_margin = page.bottom_margin = Cm(2)
        styles = self.file.styles
        styles["Normal"].font.name, styles["Normal"].font.size = "Arial", Pt(10)
        styles["Caption"].font.size, styles["Caption"].font.color.rgb = Pt(9.5), RGBColor(0x33, 0x33, 0x33)
        for name in ("Title", "Heading 1", "Heading 2", "Subtitle"):
            styles[name].font.color.rgb = RGBColor(0x1C, 0x1E, 0x21)
        styles["Title"].font.size, styles["Subtitle"].font.size = Pt(22), Pt(10.5)

    def _contents(self, document: Document) -> None:
        self.file.add_paragraph("Contents", style="TOC Heading" if "TOC Heading" in self.file.styles else "Heading 2")
        for number, section in enumerate(document.sections, 1):
            paragraph = self.file.add_paragraph()
            paragraph.paragraph_format.space_after = Pt(2)
            link = _element("w:hyperlink", {"w:anchor": _anchor(section.name)})
            run = paragraph.add_run(f"{number}. {section.title}")
            run.font.color.rgb = RGBColor(0x0B, 0x57, 0xA4)
            link.append(run._r)
            paragraph._p.append(link)

    def heading(self, text: str, level: int, anchor: str) -> None:
        """A heading that links can reach."""
        paragraph = self.file.add_heading(text, level)
        self.bookmarks += 1
        mark = {"w:id": str(self.bookmarks)}
        paragraph._p.insert(1, _element("w:bookmarkStart", mark | {"w:name": _anchor(anchor)}))
        paragraph._p.append(_element("w:bookmarkEnd", mark))

    def block(self, block: Block) -> None:
        """One block of a section."""
        if isinstance(block, Heading):
            self.file.add_heading(block.text, 2)
        elif isinstance(block, Items):
            for item in block.items:
                self._runs(self.file.add_paragraph(style="List Bullet"), item)
        elif isinstance(block, Code):
            self._code(block)
        elif isinstance(block, Table):
            self._table(block)
        elif isinstance(block, Figure):
            self._figure(block)
        else:
            self._text(block)

    def _text(self, block: Text) -> None:
        paragraph = self.file.add_paragraph()
        self._runs(paragraph, block.content)
        if block.kind != "plain":
            _shade(paragraph._p.get_or_add_pPr(), _FILLS[block.kind])

    def _code(self, block: Code) -> None:
        paragraph = self.file.add_paragraph()
        _shade(paragraph._p.get_or_add_pPr(), _FILLS["code"])
        run = paragraph.add_run(block.text)
        run.font.name, run.font.size = "DejaVu Sans Mono", Pt(8.5)

    def _runs(
        self, paragraph: Paragraph, content: Span | Spans, *, size: float | None = None, bold: bool = False
    ) -> None:
        for span in spans(content):
            text = span if isinstance(span, str) else span.text
            for piece, code in marked(breakable(text) if isinstance(span, Quote) else text):
                run = paragraph.add_run(piece)
                run.bold = bold or None
                if size is not None:
                    run.font.size = Pt(size)
                if code:
                    run.font.name = "DejaVu Sans Mono"
                    run.font.size = Pt((size or 10.5) - 1.5)

    def _caption(self, kind: str, name: str, content: Span | Spans, *, above: bool) -> None:
        """A caption with a SEQ field, from which word processors make lists of tables and figures."""
        paragraph = self.file.add_paragraph(style="Caption")
        paragraph.paragraph_format.keep_with_next = above
        paragraph.add_run(f"{kind} ")
        field = _element("w:fldSimple", {"w:instr": f"SEQ {kind} \\* ARABIC"})
        field.append(paragraph.add_run(str(self.numbering[name]))._r)
        paragraph._p.append(field)
        paragraph.add_run(". ")
        self._runs(paragraph, content)

    def _figure(self, block: Figure) -> None:
        paragraph = self.file.add_paragraph()
        paragraph.alignment = WD_ALIGN_PARAGRAPH.CENTER
        paragraph.paragraph_format.keep_with_next = True
        shape = paragraph.add_run().add_picture(io.BytesIO(block.drawing.png(DPI)))
        if shape.width > Cm(_WIDTH_CM):
            shape.height, shape.width = Emu(round(shape.height * Cm(_WIDTH_CM) / shape.width)), Cm(_WIDTH_CM)
        shape._inline.docPr.set("descr", block.alt)
        shape._inline.docPr.set("name", block.name)
        self._caption("Figure", block.name, block.caption, above=False)
        if block.data is not None:
            name = block.data if isinstance(block.data, str) else block.data.name
            self.file.add_paragraph(f"Its numbers: table {self.numbering[name]}.")

    def _table(self, table: Table) -> None:
        self._caption("Table", table.name, table.caption, above=True)
        word_table = self.file.add_table(rows=1 + len(table.rows), cols=len(table.head))
        word_table.autofit = False
        _lines(word_table)
        size = _set_widths(word_table, table)
        cells = [cell for row in word_table.rows for cell in row.cells]
        for number, row in enumerate((table.head, *table.rows)):
            for column, content in enumerate(row):
                cell = cells[number * len(table.head) + column]
                paragraph = cell.paragraphs[0]
                paragraph.paragraph_format.space_after = Pt(0)
                if table.numeric(column):
                    paragraph.alignment = WD_ALIGN_PARAGRAPH.RIGHT
                self._runs(paragraph, content, size=size, bold=number == 0 or number - 1 in table.strong)
                if number - 1 in table.strong:
                    _shade(cell._tc.get_or_add_tcPr(), _FILLS["strong"])
        for row in word_table.rows:
            row._tr.get_or_add_trPr().append(_element("w:cantSplit", {}))
        word_table.rows[0]._tr.get_or_add_trPr().append(_element("w:tblHeader", {"w:val": "true"}))
        paragraph = self.file.add_paragraph()
        if table.note:
            self._runs(paragraph, table.note, size=9)


def _set_widths(word_table: WordTable, table: Table) -> float:
    """Columns get the width of their longest words, and share the rest by the length of their texts.

    Returns the size of letters (pt) at which this fits.
    """
    texts = [[plain(row[i]) for row in (table.head, *table.rows)] for i in range(len(table.head))]
    least = [1 + max(len(part) for text in column for part in _parts(text)) for column in texts]
    preferred = [max(a, min(36, max(map(len, column)))) for a, column in zip(least, texts, strict=True)]
    size = next((s for s in _SIZES if sum(map(_width_cm(s), preferred)) <= _WIDTH_CM), _SIZES[-1])
    low, high = (list(map(_width_cm(size), counts)) for counts in (least, preferred))
    room, more = _WIDTH_CM - sum(low), sum(high) - sum(low)
    share = min(1.0, max(0.0, room / more)) if more else 0.0
    for column, a, b in zip(word_table.columns, low, high, strict=True):
        column.width = Cm(a + share * (b - a))
        for cell in column.cells:
            cell.width = column.width
    return size


def _parts(text: str) -> list[str]:
    """What of a text stays in one line: its words, and names in the pieces between their breaks."""
    return breakable(text).replace("\u200b", " ").split() or [""]


def _width_cm(size: float) -> Callable[[int], float]:
    """Centimetres that a number of letters of this size (pt) take, with the cell's margins."""
    return lambda letters: 0.32 + 0.0225 * size * letters


def _lines(word_table: WordTable) -> None:
    """Fine lines between rows, none between columns."""
    borders = _element("w:tblBorders", {})
    for side, size in (("top", "8"), ("bottom", "8"), ("insideH", "4")):
        borders.append(_element(f"w:{side}", {"w:val": "single", "w:sz": size, "w:color": "9AA3AC"}))
    margins = _element("w:tblCellMar", {})
    for side in ("left", "right"):
        margins.append(_element(f"w:{side}", {"w:w": "70", "w:type": "dxa"}))
    word_table._tbl.tblPr.append(borders)
    word_table._tbl.tblPr.append(margins)


def _anchor(name: str) -> str:
    return "s_" + name.replace("-", "_")


def _element(tag: str, attributes: dict[str, str]) -> BaseOxmlElement:
    element = OxmlElement(tag)
    for key, value in attributes.items():
        element.set(qn(key), value)
    return element


def _shade(properties: BaseOxmlElement, fill: str) -> None:
    properties.append(_element("w:shd", {"w:val": "clear", "w:color": "auto", "w:fill": fill}))
