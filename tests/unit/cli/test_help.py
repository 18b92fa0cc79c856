"""`--help` fits a screen or two and is divided by topic; `--help-all` leaves nothing out."""

from __future__ import annotations

import re
from itertools import chain

import pytest

from mien.cli import run
from mien.cli.help import COMMON, LONGEST, TOPICS
from mien.core.config import DistillConfig, LiveConfig, SuspectsConfig, TrainConfig, VideoConfig
from mien.core.config.base import StageConfig
from mien.core.config.index import IndexConfig, WorkConfig

MODELS: dict[str, tuple[type[StageConfig], ...]] = {
    "train": (TrainConfig,),
    "distill": (DistillConfig,),
    "suspects": (TrainConfig, SuspectsConfig),
    "live": (LiveConfig,),
    "video": (VideoConfig,),
    "index build": (IndexConfig, WorkConfig),
}


def flags(text: str) -> list[str]:
    """The flags that a help page lists, the first name of each; further names may stand on a line of their own."""
    first = re.findall(r"^│ (?:\*| )? {0,3}(?:[A-Z-]+ )?(--[a-z0-9-]+)", text, re.MULTILINE)
    return [name for name in first if not name.startswith(("--no-", "--empty-"))]


def help_of(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run([*command.split(), flag]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", MODELS)
def test_help_is_short_and_help_all_is_whole(command, capsys):
    fields = {"--" + name.replace("_", "-") for model in MODELS[command] for name in model.model_fields}
    short, whole = (flags(help_of(command, flag, capsys)) for flag in ("--help", "--help-all"))
    assert fields <= set(whole)
    assert set(short) <= set(whole)
    assert len(short) <= LONGEST
    if len(whole) > LONGEST:
        text = help_of(command, "--help", capsys)
        assert f"{len(whole) - len(short)} more flags, with good defaults: --help-all." in text


def test_topics_divide_the_flags(capsys):
    text = help_of("train", "--help-all", capsys)
    panels = re.split(r"^╭─ ([^─]+) ─+╮$", text, flags=re.MULTILINE)[1:]
    by_topic = dict(zip(panels[::2], map(flags, panels[1::2]), strict=True))
    assert {"--mixing", "--mix-alpha"} <= set(by_topic["Mixing"])
    assert "--patience" in by_topic["Optimiser and schedule"]
    assert "--patience" in help_of("live", "--help", capsys).split("Following faces")[1].split("Smoothing")[0]
    assert by_topic["Parameters"] == ["--index", "--out", "--seed", "--json"]


def test_topics_name_settings_that_there_are():
    known = set(chain.from_iterable(model.model_fields for model in chain.from_iterable(MODELS.values())))
    named = [name for names in TOPICS.values() for name in names.split()]
    assert set(named) <= known
    assert set(named) >= COMMON
    assert len(named) - len(set(named)) == 1  # patience: of a training, and of a face


def test_lists_are_emptied_by_flags_of_the_whole_help_alone(capsys):
    assert "--empty-source" not in help_of("index build", "--help", capsys)
    assert "--empty-source" in help_of("index build", "--help-all", capsys)
