"""One truth for a default; unknown keys name the nearest; all faults at once."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from mien.core.config import DistillConfig, IndexConfig, TrainConfig, load_study, read_toml, resolve
from mien.core.config.base import expand
from mien.core.config.recipes import recipe
from mien.core.config.study import shipped_studies
from mien.core.config.train_groups import ALIASES
from mien.core.errors import ConfigError, UsageError


def test_all_faults_at_once_with_the_nearest_key():
    with pytest.raises(ConfigError) as caught:
        TrainConfig.parse({"bacth_size": 3, "lr": -1, "head": "cosine"}, where="teacher x")
    text = str(caught.value)
    assert "teacher x" in text
    assert "Did you mean 'batch_size'" in text
    assert "'lr'" in text
    assert "'head'" in text


def test_builtin_then_recipe_then_study_then_flag():
    config, origin = resolve(
        TrainConfig, ("study", {"backbone": "vit_tiny", "epochs": 7}), ("flag", {"epochs": 9, "lr": 0.5})
    )
    assert (config.epochs, origin["epochs"]["from"]) == (9, "flag")
    assert (config.lr, origin["lr"]["from"]) == (0.5, "flag")
    assert (config.drop_path, origin["drop_path"]["from"]) == (recipe("vit_tiny")["drop_path"], "recipe")
    assert (config.head, origin["head"]["from"]) == ("arcface", "built-in")
    assert {key: entry["value"] for key, entry in origin.items()} == config.model_dump(mode="json")


def test_the_recipe_follows_the_backbone():
    assert recipe("mobilenetv3_small") != recipe("resnet18")
    assert recipe("unheard_of") == {}
    for name in ("resnet18", "efficientnet_b3", "convnext_tiny", "vit_small", "mobilenetv3_large", "cnn"):
        TrainConfig.model_validate(recipe(name) | {"backbone": name})


RECIPES = sorted(Path(str(resources.files("mien.recipes"))).glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_is_sound_and_names_its_source(path):
    text = path.read_text()
    data = read_toml(path)
    assert set(data) == {"start", "family", "settings"}
    assert path.stem.endswith(f"_{data['start']}")
    assert set(data["settings"]) <= set(TrainConfig.model_fields)
    assert "arXiv" in text or "report" in text or "rate of the training from scratch" in text
    start = {"scratch": {}, "finetune": {"pretrained": "timm"}, "polish": {"init_from": "x"}}[data["start"]]
    backbone = (
        "regnetx_002"
        if data["family"] == ["any"]
        else next(a for a in ALIASES if ALIASES[a].startswith(tuple(data["family"])))
    )
    _, origin = resolve(TrainConfig, ("flag", {"backbone": backbone, **start}))
    assert {key for key, entry in origin.items() if entry["from"] == "recipe"} == set(data["settings"])
    resolve(DistillConfig, ("study", {"backbone": backbone, **start}))


def test_every_family_has_a_recipe_for_each_start():
    for name in ALIASES:
        assert recipe(name)
        assert recipe(name, "finetune")
        assert recipe(name, "polish")
    assert recipe("vit_tiny", "finetune")["layer_decay"] < 1
    assert recipe("convnext_tiny", "finetune")["lr"] == 5e-5
    assert recipe("regnetx_002") == {}


def test_impossible_combinations():
    with pytest.raises(ConfigError, match="above lr"):
        resolve(TrainConfig, ("study", {"lr": 1e-6}))
    resolve(TrainConfig, ("study", {"lr": 5e-6, "backbone": "vit_tiny"}))  # its recipe's floor is lower
    with pytest.raises(ConfigError, match="for how long"):
        resolve(TrainConfig, ("flag", {"freeze_blocks": 1}))
    resolve(TrainConfig, ("flag", {"freeze_blocks": 1, "pretrained": "timm"}))  # its recipe says for how long
    with pytest.raises(ConfigError, match="val and test fractions together exceed 1"):
        IndexConfig.parse({"val_fraction": 0.6, "test_fraction": 0.5}, where="x")
    IndexConfig.parse({"test_fraction": 1}, where="x")
    with pytest.raises(ConfigError, match="'joy' is one of the seven classes; --keep 'label!=happy'"):
        IndexConfig.parse({"drop_labels": ("joy",)}, where="x")


@pytest.mark.parametrize("path", sorted(shipped_studies().glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_studies_load_and_state_cost_and_expectation(path: Path):
    study = load_study(path)
    assert study.name == path.stem
    assert study.description
    assert study.cost
    assert study.expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("seed = 0", "missing"),
        ("name = 'x'\nindxe = 3", "Did you mean 'index'"),
        ("name = 'x'\n[index]\nsource=['synthetic=9']\n[[teachers]]\nbackbone='cnn'\nepoch=3", "Did you mean 'epochs'"),
        ("name = 'x'\n[index]\nsiez=48\n[[teachers]]\nbackbone='cnn'", "Did you mean 'size'"),
        ("name = 'x'\n[index]\n[[teachers]]\nbackbone='cnn'\n[[teachers]]\nbackbone='cnn'", "one name"),
        (
            "name = 'x'\n[index]\n[[teachers]]\nbackbone='cnn'\n[student]\nkd_temprature=1",
            "Did you mean 'kd_temperature'",
        ),
        ("name = ", "not valid TOML"),
        ("name='x'\nteachers = 3\n[index]", "list of tables"),
    ],
)
def test_faulty_studies(tmp_path, text, expected):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_study(path)


def test_data_variables(monkeypatch):
    monkeypatch.setenv("SOME_PLACE", "/x")
    assert expand("${SOME_PLACE}/y") == "/x/y"
    monkeypatch.delenv("SOME_PLACE")
    with pytest.raises(UsageError, match="SOME_PLACE, which is not set"):
        expand("${SOME_PLACE}/y")


def test_a_later_setting_enters_a_fingerprint_only_where_it_acts():
    """Runs made before the setting existed go on and are found finished."""
    assert "degrade" not in TrainConfig().identity()
    assert TrainConfig(degrade=0.5).identity() == TrainConfig().identity() | {"degrade": 0.5}
    assert "save_every_steps" not in TrainConfig().identity()


def test_a_study_on_other_sources_says_so_in_its_text():
    from mien.core.config.study import StudyConfig, study_with

    path = shipped_studies() / "report.toml"
    study, text = study_with(path, ["folder=/a b", "synthetic=9"])
    assert study.index.source == ("folder=/a b", "synthetic=9")
    before = load_study(path)
    assert study == before.model_copy(update={"index": before.index.model_copy(update={"source": study.index.source})})
    assert StudyConfig.parse(tomllib.loads(text), where="x") == study
    assert study_with(path, []) == (before, path.read_text(encoding="utf-8"))


def test_a_study_whose_sources_cannot_be_exchanged_is_named(tmp_path):
    from mien.core.config.study import study_with

    path = tmp_path / "s.toml"
    path.write_text("name = 'x'\n[index]\nsize=48\n[[teachers]]\nbackbone='cnn'")
    with pytest.raises(ConfigError, match="its sources cannot be exchanged"):
        study_with(path, ["synthetic=9"])
