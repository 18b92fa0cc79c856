"""`mien index …`: build and look at an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App

from mien.cli.common import Flat, Json, Out, show
from mien.core.config import IndexConfig, WorkConfig

index_app = App(name="index", help="Build and look at an index of labelled images.")


@index_app.command(name="build")
def index_build(
    *,
    out: Out,
    like: Path | None = None,
    config: Annotated[IndexConfig | None, Flat] = None,
    work: Annotated[WorkConfig | None, Flat] = None,
    json: Json = False,
) -> None:
    """Make one clean index of labelled images.

    Parameters
    ----------
    out
        the index's folder
    like
        a run, or a model file (ONNX): its size, crop and colour are taken, so that it can be judged on this index
    """
    from mien.data.audit.text import audit_text
    from mien.stages import index

    settings = config or IndexConfig()
    index.run(settings if like is None else index.like(settings, like), out, work=work)
    audit = index.audit(out, verify=False)  # just written, or just verified
    show(audit, json=json, text=audit_text(audit))


@index_app.command(name="audit")
def index_audit(folder: Path, *, figures: Path | None = None, json: Json = False) -> None:
    """Print what an index holds: what looks suspicious, classes, splits, duplicates, what was dropped.

    Parameters
    ----------
    folder
        the index
    figures
        a folder for the composition's figures and a contact sheet of each class
    """
    from mien.data.audit.text import audit_text
    from mien.stages import index

    audit = index.audit(folder)
    written = {} if figures is None else {"figures": [str(path) for path in index.figures(folder, figures)]}
    show({**audit, **written}, json=json, text=audit_text(audit))


@index_app.command(name="diff")
def index_diff(first: Path, second: Path, *, json: Json = False) -> None:
    """Say what changed from one index to another: images, labels, splits.

    Parameters
    ----------
    first
        the earlier index
    second
        the later one
    """
    from mien.data.audit.text import diff_text
    from mien.stages import index

    differences = index.diff(first, second)
    show(differences, json=json, text=diff_text(differences))


@index_app.command(name="sources")
def index_sources(*, json: Json = False) -> None:
    """List the sources: the form in which each is named, its terms, how to get it."""
    from mien.stages import index

    rows = index.sources()
    text = "\n".join(f"{r['name']}\n  form   {r['form']}\n  terms  {r['license']}\n  get    {r['get']}" for r in rows)
    show({"sources": rows}, json=json, text=text)


@index_app.command(name="get")
def index_get(name: str, *, out: Out, json: Json = False) -> None:
    """Download what a source's terms allow, verified by a pinned hash; goes on where it broke off.

    Parameters
    ----------
    name
        the source, e.g. ferplus
    out
        the folder for its files
    """
    from mien.stages import index

    lines = index.get(name, out)
    show({"files": lines}, json=json, text="\n".join(lines))
