"""A model file to a server on this machine: the live page, in which the browser does everything, and the HTTP API."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypedDict

from mien.core.artifacts.framelog import SCHEMA
from mien.core.artifacts.models import downloaded_file
from mien.core.artifacts.onnx_model import ModelCard
from mien.core.config.live import SHIPPED_RULES, DetectConfig, LiveRules
from mien.core.geometry import Crop
from mien.core.images import decode
from mien.core.progress import warn
from mien.runtime.detect import BLAZEFACE_FILE, BLAZEFACE_SETTINGS, DetectorSettings, YuNet, crop_of
from mien.runtime.policy import thresholds_of
from mien.runtime.recognizer import ENVIRONMENT, Description, Recognizer, model_file, open_session
from mien.web import assets


class PageCard(TypedDict):
    """A model as the page gets it; `columns` are those of the table that it writes."""

    name: str
    backbone: str
    labels: list[str]
    crop: Crop
    thresholds: list[float]
    sources: list[str]
    licenses: list[str]
    columns: list[str]


def page_detector() -> tuple[DetectorSettings, bytes]:
    """The settings and the network of the page's detector: YuNet where it was fetched, else BlazeFace.

    YuNet finds smaller faces; it gets the default settings.
    """
    path = downloaded_file(YuNet.name)
    if path is None:
        return BLAZEFACE_SETTINGS, BLAZEFACE_FILE.read_bytes()
    config = DetectConfig()
    return {
        "name": YuNet.name,
        "side": config.detect_side,
        "min_score": config.min_confidence,
        "overlap": YuNet.OVERLAP,
    }, YuNet.network(path)


def page_card(card: ModelCard, detector: str) -> PageCard:
    """What the page needs to know of a model; the crop is the one around this detector's boxes."""
    return {
        "name": card.name,
        "backbone": card.backbone,
        "labels": list(card.labels),
        "crop": crop_of(card.crop, detector).document(),
        "thresholds": thresholds_of(LiveRules(), card.decisions.thresholds).tolist(),
        "sources": card.sources,
        "licenses": card.licenses,
        "columns": SCHEMA.names,
    }


def answers_of(model: Path) -> Callable[[bytes], Description]:
    """Makes the API's answer to an image file's bytes; the model is opened for the first request."""
    opened = cache(lambda: Recognizer.load(model))

    def answer(data: bytes) -> Description:
        return opened().describe(decode(data))

    return answer


def run(model: Path | None, port: int, announce: Callable[[str, str], None]) -> None:
    """Serve the page and the API until Ctrl-C; `announce(url, model's name)` is called when they answer.

    Without the page's assets the API alone is served, with a warning.

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
        application = server.application(port, _page_files(path, card) if page else None, api)
        server.serve(application, listening)
    except KeyboardInterrupt:
        return


def _page_files(path: Path, card: ModelCard) -> dict[str, bytes]:
    """The files that the page loads beside its own, by name."""
    detector, network = page_detector()
    documents = {"model": page_card(card, detector["name"]), "live": SHIPPED_RULES, "detector": detector}
    texts = {f"{name}.json": json.dumps(document).encode() for name, document in documents.items()}
    return {**texts, "detector.onnx": network, "model.onnx": path.read_bytes()}


def setup() -> tuple[Path, bool]:
    """Fetch and convert the page's assets; returns their folder, and whether that was done now."""
    from mien.web.blazeface import to_onnx  # noqa: PLC0415  (onnx)

    return assets.FOLDER, assets.setup(assets.npm_ci, to_onnx)
