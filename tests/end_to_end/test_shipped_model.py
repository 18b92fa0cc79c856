"""The model that ships: whole, the default everywhere, and right about a photograph that a dependency brings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.cli import run
from mien.core.artifacts.models import read_catalogue
from mien.core.labels import LABELS
from mien.runtime.recognizer import Recognizer


@pytest.fixture(scope="module")
def astronaut() -> Path:
    """A photograph of a smiling woman in scikit-image's wheel (NASA, public domain)."""
    return Path(str(resources.files("skimage") / "data" / "astronaut.png"))


def test_every_file_is_what_the_catalogue_says(capsys):
    assert run(["models", "verify"]) == 0
    catalogue = read_catalogue()
    assert catalogue.default in {model.name for model in catalogue.models}
    folder = Path(str(resources.files("mien.models")))
    assert {p.name for p in folder.glob("*.onnx")} == {model.file for model in catalogue.models}
    assert (folder / "LICENSE").is_file()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "{{" not in card
    for model in catalogue.models:
        assert model.sha256[:16] in card
        assert model.bytes < 10_000_000


def test_a_smile_is_recognised_by_one_command(astronaut, capsys):
    assert run(["recognize", str(astronaut), "--json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["pictures"]
    (face,) = image["faces"]
    assert face["label"] == "happy"
    assert set(face["probabilities"]) == set(LABELS)
    x, y, w, h = face["box"]
    assert abs(x + w / 2 - 224) < 40  # her face, not the helmet or the flag
    assert abs(y + h / 2 - 115) < 50


def test_every_shipped_file_recognises_it(astronaut):
    for model in read_catalogue().models:
        (face,) = Recognizer.load(model.name)(np.asarray(Image.open(astronaut).convert("RGB")))
        assert face.label == "happy"


def test_no_torch_is_needed(astronaut):
    code = (
        "import sys; from mien.cli import run; code = run(['recognize', sys.argv[1]]);"
        "assert not {'torch', 'timm', 'onnx'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(astronaut)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "happy" in done.stdout


def test_no_file_tells_of_the_machine_that_made_it():
    """The exporter notes a stack trace at each node; the card is all that a model says of itself."""
    folder = Path(str(resources.files("mien.models")))
    for path in folder.glob("*.onnx"):
        data = path.read_bytes()
        assert not re.search(rb"stack_trace|/src/mien/|File \\?\"", data), path.name
