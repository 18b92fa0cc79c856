"""Settings of `mien train` and `mien distill`, and the recipes that give their defaults."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from mien.core.config.base import StageConfig, read_toml
from mien.core.errors import UsageError, nearest

ALIASES: dict[str, str] = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "efficientnet_b3": "efficientnet_b3",
    "convnext_tiny": "convnext_tiny",
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "mobilenetv3_large": "mobilenetv3_large_100",
    "mobilenetv3_small": "mobilenetv3_small_100",
    "cnn": "cnn",
}


class TrainConfig(StageConfig):
    """How a network is trained. Built-in defaults; a recipe, a study and flags go over them in this order."""

    backbone: str = Field("resnet18", description=f"timm name or one of: {', '.join(ALIASES)}")
    stem: Literal["native", "small"] = Field(
        "native", description="small: a CNN's first downsampling steps removed, for crops under 64 px"
    )
    img_size: int | None = Field(
        None, ge=32, le=512, description="input side of the network; default: the index's crops as they are"
    )
    head: Literal["arcface", "linear"] = Field(
        "arcface", description="arcface: cosine logits with an angular margin in training"
    )
    scale: float = Field(10.0, gt=0, le=128, description="ArcFace's s: what cosines are multiplied by")
    margin: float = Field(0.2, ge=0, le=1.0, description="ArcFace's m, radians, after its ramp")
    plain_logits_epochs: float = Field(2, ge=0, description="epochs without a margin at the start")
    arcface_warmup_epochs: float = Field(4, ge=0, description="epochs over which the margin then grows to m")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target spread over all classes")
    soft_votes: bool = Field(False, description="train on the annotators' votes where the index has them")
    balanced_sampling: bool = Field(True, description="draw every class equally often")
    optimizer: Literal["adamw", "adamw-safe", "sgd"] = Field(
        "adamw", description="adamw-safe: no fused or foreach kernels; sgd: with Nesterov momentum 0.9"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.05, ge=0, description="decoupled for adamw; none on biases, norms and scales")
    scheduler: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    warmup_epochs: float = Field(2, ge=0, description="epochs of linear warm-up")
    min_lr: float = Field(1e-5, ge=0, description="floor of the cosine")
    epochs: int = Field(30, ge=1, description="passes over the train rows")
    batch_size: int = Field(64, ge=2, description="pictures a step, over all processes")
    ema_decay: float = Field(0.995, ge=0, lt=1, description="moving average of the weights; 0: none")
    clip_grad: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth, where the backbone has it")
    freeze_backbone_epochs: float = Field(0, ge=0, description="epochs in which the head alone learns")
    crop_min: float = Field(0.7, gt=0, le=1, description="smallest area share of the random resized crop")
    rotate: float = Field(10.0, ge=0, le=45, description="largest rotation, degrees")
    flip: bool = Field(True, description="mirror every second picture")
    jitter: float = Field(0.2, ge=0, le=1, description="largest change of brightness and contrast")
    erase: float = Field(0.1, ge=0, le=1, description="chance that a rectangle is erased")
    mixup: float = Field(0.0, ge=0, description="alpha of MixUp's Beta distribution; 0: none")
    amp: Literal["auto", "no", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto: bf16 where the device and the backbone gain by it"
    )
    eval_every: int = Field(1, ge=1, description="epochs between looks at val")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of initialisation, order and augmentation")
    save_every_steps: int = Field(200, ge=1, description="steps between saves; a kill loses at most these")
    tracker: Literal["none", "tensorboard"] = Field("none", description="also log there")

    @model_validator(mode="after")
    def _known(self) -> TrainConfig:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}")
        return self


class DistillConfig(TrainConfig):
    """How a student is taught: Hinton et al. 2015, arXiv 1503.02531, with the teacher on the same crop."""

    backbone: str = Field(
        "mobilenetv3_small", description="the student; " + str(TrainConfig.model_fields["backbone"].description)
    )
    head: Literal["arcface", "linear"] = Field("linear", description=TrainConfig.model_fields["head"].description)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description=TrainConfig.model_fields["label_smoothing"].description)
    kd_temperature: float = Field(2.0, gt=0, le=20, description="softens teacher and student in the KL term")
    kd_weight: float = Field(0.8, ge=0, le=1, description="share of the KL term; the rest is the label's loss")


C = TypeVar("C", bound=TrainConfig)

# What never changes a result, so that a run may go on under other values.
NEUTRAL = ("save_every_steps", "tracker")


def recipe(backbone: str) -> dict[str, Any]:
    """The settings that `recipes/` gives this backbone (by its family), empty where none fits."""
    folder = resources.files("mien.recipes")
    timm_name = ALIASES.get(backbone, backbone)
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".toml"):
            with resources.as_file(entry) as path:
                data = read_toml(path)
            if any(timm_name.startswith(prefix) for prefix in data["family"]):
                return dict(data["settings"])
    return {}


def check_backbone(name: str, known: list[str]) -> None:
    """Raise a `UsageError` with the nearest name unless `name` is an alias or in `known`."""
    if name not in ALIASES and name not in known:
        raise UsageError(
            f"No backbone {name!r}.{nearest(name, [*ALIASES, *known])}",
            rule="Backbones are timm's names or our aliases.",
        )


def resolve(model: type[C], *layers: tuple[str, dict[str, Any]]) -> tuple[C, dict[str, dict[str, Any]]]:
    """Join layers (built-in < recipe < study < flag) into a config and each value's origin.

    The recipe follows the backbone that the layers name. Returns the config and
    `{key: {"value": …, "from": …}}`.
    """
    named = [layer["backbone"] for _, layer in layers if "backbone" in layer]
    backbone = named[-1] if named else model.model_fields["backbone"].default
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    stack = [("recipe", {k: v for k, v in recipe(backbone).items() if k in model.model_fields}), *layers]
    for name, layer in stack:
        values.update(layer)
        origin.update(dict.fromkeys(layer, name))
    config = model.parse(values, where=" and ".join(name for name, layer in stack if layer) or "defaults")
    dumped = config.model_dump(mode="json")
    return config, {key: {"value": dumped[key], "from": origin.get(key, "built-in")} for key in dumped}
