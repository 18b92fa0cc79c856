"""One truth for a default; unknown keys name the nearest; all faults at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.core.config import DistillConfig, IndexConfig, TrainConfig, load_study, resolve
from mien.core.config.recipes import recipe
from mien.core.config.study import expand, shipped_studies
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


def test_every_recipe_key_is_a_setting():
    resolve(DistillConfig, ("study", {}))


def test_impossible_combinations():
    with pytest.raises(ConfigError, match="above lr"):
        TrainConfig.parse({"lr": 1e-6}, where="x")
    with pytest.raises(ConfigError, match="leave no train rows"):
        IndexConfig.parse({"val_fraction": 0.4, "test_fraction": 0.4}, where="x")


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
