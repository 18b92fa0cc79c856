"""`mien serve`: the live page."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.types import UInt16

from mien.cli.common import Json, Model, show

serve_app = App(name="serve", help="The live page: camera, image or video, recognised in the browser.")


@serve_app.default
def serve(
    *, port: Annotated[UInt16, Parameter(name=["--port", "-p"])] = 8300, model: Model = None, json: Json = False
) -> None:
    """Serve the live page on this machine until Ctrl-C. Everything runs in the browser; no frame leaves it.

    Parameters
    ----------
    port
        of http://127.0.0.1; 0 takes any that is free
    model
        a model file, or the name of one that ships; without it the one that MIEN_MODEL names, else the one that ships
    """
    from mien.stages import serve as stage

    def announce(url: str, name: str) -> None:
        show({"url": url, "model": name}, json=json, text=f"{url}  (model {name}; Ctrl-C stops it)")
        sys.stdout.flush()

    stage.run(model, port, announce)


@serve_app.command
def setup(*, json: Json = False) -> None:
    """Fetch what the page needs of other projects from npm (onnxruntime-web, a face detector), once."""
    from mien.stages import serve as stage

    folder, fresh = stage.setup()
    text = f"{folder}: {'fetched' if fresh else 'was there'}"
    show({"folder": str(folder), "fetched": fresh}, json=json, text=text)
