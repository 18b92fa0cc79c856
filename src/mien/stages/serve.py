"""A model file to a server on this machine: the live page, in which the browser does everything, and the HTTP API."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mien.core.artifacts.framelog import SCHEMA
from mien.core.artifacts.onnx_model import ModelCard
from mien.core.config.live import SHIPPED_RULES, LiveRules
from mien.core.images import decode
from mien.core.progress import warn
from mien.runtime.detect import BLAZEFACE_SETTINGS
from mien.runtime.policy import thresholds_of
from mien.runtime.recognizer import ENVIRONMENT, Recognizer, model_file, open_session
from mien.web import assets


def page_card(card: ModelCard) -> dict[str, object]:
    """What the page needs to know of a model, and what it says about it."""
    return {
        "name": card.name,
        "backbone": card.backbone,
        "labels": list(card.labels),
        "crop": card.crop.document(),
        "thresholds": thresholds_of(LiveRules(), card.decisions.thresholds).tolist(),
        "sources": card.sources,
        "licenses": card.licenses,
        "columns": SCHEMA.names,
    }


def answers_of(model: Path) -> Callable[[bytes], dict[str, Any]]:
    """What the API says of an image file's bytes; the model is opened when the first one comes."""
    opened = cache(lambda: Recognizer.load(model))

    def answer(data: bytes) -> dict[str, Any]:
        return opened().describe(decode(data))

    return answer


def run(model: Path | None, port: int, announce: Callable[[str, str], None]) -> None:
    """Serve the page and the API until Ctrl-C; `announce(url, model's name)` is called when they answer.

    Without the page's assets the API alone is served, which is said.

    Raises
    ------
    UsageError
        where the port is taken
    ArtifactError
        for a file that is no model of mien
    """
    from mien.web import server  # noqa: PLC0415  (an extra)
    from mien.web.api import Api  # noqa: PLC0415

    path = model_file(model if model is not None else os.environ.get(ENVIRONMENT))
    card = open_session(path, threads=1)[1]
    listening = server.listen(port)
    port = int(listening.getsockname()[1])
    page = assets.ready()
    if not page:
        warn(f"{assets.MISSING} Served is the API alone. {assets.FIX}")
    announce(f"http://{server.HOST}:{port}", card.name)
    try:
        api = Api(answers_of(path), {"name": card.name, "labels": list(card.labels), "licenses": card.licenses})
        documents = {"model.json": page_card(card), "live.json": SHIPPED_RULES, "detector.json": BLAZEFACE_SETTINGS}
        server.serve(server.application(port, path, documents, api, page=page), listening)
    except KeyboardInterrupt:
        return


def setup() -> tuple[Path, bool]:
    """Fetch and convert the page's assets; returns their folder, and whether that was done now."""
    from mien.web.blazeface import to_onnx  # noqa: PLC0415  (onnx)

    return assets.FOLDER, assets.setup(assets.npm_ci, to_onnx)
