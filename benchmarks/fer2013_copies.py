"""Which rows of FER2013 show an image that another row shows too, identically or nearly.

    python benchmarks/fer2013_copies.py --index INDEX --out docs/results/fer2013_copies.csv

INDEX is one of FER2013 alone (`mien index build --source fer2013=FILE --out INDEX`). A line for each such row:

row        its number in the file that was indexed, from 0
image_id   the first 16 digits of sha256 of "mien-grey8:48x48:" and the 2,304 pixel bytes; it finds the row in any file
split      the official one: train (Training), val (PublicTest), test (PrivateTest)
group      rows with one name show one photograph, as far as chains of verified pairs reach
kind       identical: another row has the same pixels; near: copies of it are mirrored, cropped, re-compressed …
training   of val and test rows, the closest copy in Training: identical, near, none

No image and no label is written.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.csv as pacsv

from mien.core.artifacts.base import check_file, read_json
from mien.core.artifacts.index import read_index, read_occurrences
from mien.core.errors import UsageError

DIGITS = 16
COLUMNS = ("row", "image_id", "split", "group", "kind", "training")
CLOSENESS = ("identical", "near", "none")


def copies(folder: Path) -> tuple[list[dict[str, str]], dict[str, dict[str, int]]]:
    """The lines, by row; and rows of val and test by their closest copy: {split: {identical, near, none: rows}}."""
    index = read_index(folder)
    sources = read_json(folder / "provenance.json", kind="provenance")["sources"]
    if [source["kind"] for source in sources] != ["fer2013"]:
        raise UsageError(
            f"{folder} holds {', '.join(source['name'] for source in sources)}.",
            rule="Copies are counted among FER2013's own rows.",
            fix="Build an index of it alone: `mien index build --source fer2013=FILE --out DIR`.",
        )
    check_file(folder, index.manifest, "duplicates.csv")
    linked = pacsv.read_csv(folder / "duplicates.csv")
    group = dict(zip(linked["image_id"].to_pylist(), linked["group_id"].to_pylist(), strict=True))
    rows = read_occurrences(folder).select(["path", "image_id", "official_split"]).to_pylist()
    by_image, by_group = defaultdict(list), defaultdict(list)
    for row in rows:
        by_image[row["image_id"]].append(row["official_split"])
        if row["image_id"] in group:
            by_group[group[row["image_id"]]].append(row["official_split"])
    lines, counts = [], {split: Counter(dict.fromkeys(CLOSENESS, 0)) for split in ("val", "test")}
    for row in rows:
        image, split = row["image_id"], row["official_split"]
        seen = by_group.get(group.get(image, ""), [])
        training = "identical" if "train" in by_image[image] else "near" if "train" in seen else "none"
        if split != "train":
            counts[split][training] += 1
        if image in group:
            kind = "identical" if len(by_image[image]) > 1 else "near"
            values = (
                row["path"].rsplit("#", 1)[1],
                image[:DIGITS],
                split,
                group[image],
                kind,
                training if split != "train" else "",
            )
            lines.append(dict(zip(COLUMNS, values, strict=True)))
    return sorted(lines, key=lambda line: int(line["row"])), {split: dict(found) for split, found in counts.items()}


def read_copies(path: Path) -> dict[str, str]:
    """{image_id's first digits: the closest copy in Training} of the val and test rows that stand in the table."""
    with path.open(newline="", encoding="utf-8") as file:
        return {line["image_id"]: line["training"] for line in csv.DictReader(file) if line["training"]}


def write(path: Path, lines: list[dict[str, str]]) -> None:
    """Write the table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main() -> None:
    """Write the table and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    lines, counts = copies(given.index)
    write(given.out, lines)
    groups = len({line["group"] for line in lines})
    print(json.dumps({"rows": len(lines), "groups": groups, "closest copy in Training": counts}, indent=1))


if __name__ == "__main__":
    main()
