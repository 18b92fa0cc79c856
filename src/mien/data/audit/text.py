"""Audits and differences of indexes as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from mien.core.artifacts.audit import Absent, Audit, OfficialLeaks, SplitCounts
from mien.core.artifacts.index import SPLITS
from mien.data.audit.diff import IndexDifference

_WIDTH = 150


def audit_text(audit: Audit) -> str:
    """Suspicious findings first, then the table of the report (classes × splits), sources, duplicates, dropped rows."""
    lines = []
    for finding in audit["suspicious"]:
        examples = ", ".join(map(str, finding["examples"][:3]))
        lines.append(_short(f"! {finding['count']:,} {finding['what']} ({finding['rule']}): {examples}"))
    if lines:
        lines.append("")
    lines += _table("class", audit["distribution"], audit["totals"])
    lines += ["", *_minority(audit), *_absent(audit["absent"]), ""]
    lines += _table("source", audit["by_source"], None)
    lines.append("")
    rows = ", ".join(f"{n:,} {name}" for name, n in audit["source_rows"].items())
    same, near = audit["duplicates"], audit["near_duplicates"]
    if len(audit["source_rows"]) > 1:
        rows += "; what is counted in rows below counts those of all sources"
    lines += [
        f"source rows          {rows}",
        f"pixel-identical      {same['identical_groups']:,} groups of {same['pictures_in_groups']:,} rows; "
        f"{_leaks(same)}",
        f"near-duplicates      {near['clusters']:,} clusters of {near['pictures']:,} images, the largest "
        f"{near['largest']}; with the identical {_leaks(near)}",
        f"here on two sides    {audit['groups_on_two_sides']} groups, {audit['subjects_on_two_sides']} persons",
    ]
    for title, counts in (
        ("moved by their group", audit["moved"]),
        ("dropped (rows)", audit["dropped"]),
        ("rejected (rows)", audit["rejected"]),
        ("crops", audit["aligned"]),
    ):
        if counts:
            lines.append(f"{title:20} " + _listed(counts))
    for terms, row in audit["by_license"].items():
        lines.append(f"{'terms':20} {row['total']:,} images: {terms}")
    if audit["relabelled"]:
        lines.append(f"{'relabelled':20} {audit['relabelled']:,}")
    for key, values in audit["by_attribute"].items():
        listed = values["values"]
        named = listed if isinstance(listed, str) else ", ".join(f"{v} {c['total']:,}" for v, c in listed.items())
        lines.append(_short(f"{key[:20]:20} {values['rows']:,} rows: {named}"))
    return "\n".join(lines)


def _table(title: str, rows: Mapping[str, Mapping[str, float]], totals: SplitCounts | None) -> list[str]:
    columns = (*SPLITS, "total")
    whole = sum(row["total"] for row in rows.values())
    lines = [f"{title:12}" + "".join(f"{c:>10}" for c in columns) + "   share"]
    lines += [
        f"{name[:12]:12}" + "".join(f"{row[c]:>10,}" for c in columns) + f" {100 * row['total'] / max(1, whole):6.2f} %"
        for name, row in rows.items()
    ]
    if totals is not None:
        lines.append(f"{'total':12}" + "".join(f"{totals[c]:>10,}" for c in columns) + " 100.00 %")
    return lines


def _minority(audit: Audit) -> list[str]:
    share = audit["minority"]["share"]
    named = ", ".join(audit["minority"]["classes"])
    return [f"{'minority':12}" + "".join(f"{100 * share[c]:>9.2f}%" for c in (*SPLITS, "total")) + f"   {named}"]


def _absent(absent: Absent) -> list[str]:
    """One line when splits have no rows, or no rows of some classes."""
    parts = [f"splits {', '.join(absent['splits'])}"] if absent["splits"] else []
    parts += [f"in {split} {', '.join(names)}" for split, names in absent["classes"].items()]
    return [f"{'absent':12}   {'; '.join(parts)}"] if parts else []


def _leaks(leaks: OfficialLeaks) -> str:
    leaked = leaks["official_rows_also_in_train"]
    crossing = leaks["groups_crossing_official_splits"]
    return (
        f"{crossing:,} cross official splits (official rows also in train: val {leaked['val']:,}, test "
        f"{leaked['test']:,})"
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {n:,}" for what, n in counts.items())


def _short(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def diff_text(diff: IndexDifference) -> str:
    """What changed, the counts before the examples."""
    lines = [f"{diff['a']} -> {diff['b']}"]
    if diff["same_index"]:
        return f"{lines[0]}: the same rows and pixels"
    lines.append(
        f"rows {diff['rows'][0]:,} -> {diff['rows'][1]:,}; {diff['same_pictures']:,} images in both, "
        f"{diff['group_changed']:,} of them in another group"
    )
    for title, images in (("removed", diff["removed"]), ("added", diff["added"])):
        if images["count"]:
            lines.append(f"{title} {images['count']:,}: {_listed(images['by'])}")
            lines += [f"    {path}" for path in images["examples"][:3]]
    for title, changes in (("other label", diff["label_changed"]), ("other split", diff["split_changed"])):
        if changes["count"]:
            lines.append(f"{title} {changes['count']:,}: {_listed(changes['changes'])}")
            lines += [f"    {e['path']}: {e['from']} -> {e['to']}" for e in changes["examples"][:3]]
    return "\n".join(lines)
