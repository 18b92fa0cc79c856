"""`mien bench …`: what networks cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from mien.cli.common import Json, show
from mien.core.config import LatencyConfig

bench_app = App(name="bench", help="Measure what networks cost.")


@bench_app.command(name="latency")
def latency(
    *,
    config: Annotated[LatencyConfig | None, Parameter(name="*", consume_multiple=True)] = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    json: Json = False,
) -> None:
    """Time untrained networks on one image, and count their parameters, multiply-accumulates and bytes.

    Parameters
    ----------
    out
        write everything here (.json)
    """
    from mien.stages import bench as stage

    document = stage.run(config or LatencyConfig(), out)
    show(document, json=json, text=stage.table(document))
