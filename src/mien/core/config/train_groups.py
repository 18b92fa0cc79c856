"""The settings of a training in groups: what each one holds, and what in it does not go together.

`TrainConfig` is all of them. Flags, TOML keys and fingerprints know the settings by their own names, without a group's.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mien.core.config.base import StageConfig
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
    "hybrid": "hybrid",
}
OURS = ("cnn", "hybrid")
Head = Literal["linear", "arcface", "cosface", "subcenter", "joint"]
# Losses after which a softmax no longer assumes the shares that training showed.
PRIOR_FREE = ("balanced_softmax", "logit_adjusted")
Owner = tuple[bool, str]
"""Whether a setting acts, and under which other one it does."""


def check_backbone(name: str, names: list[str]) -> None:
    """Raise a `UsageError` with the nearest name unless `name` is an alias or in `names`."""
    if name not in ALIASES and name not in names:
        raise UsageError(
            f"No backbone {name!r}.{nearest(name, [*ALIASES, *names])}",
            rule="Backbones are timm's names or our aliases.",
        )


class Group(StageConfig):
    """Settings that belong together. Groups are joined by inheritance; each adds to what the others say."""

    def contradictions(self) -> list[str]:
        """Settings that do not go together, in words."""
        return []

    def owners(self) -> dict[str, Owner]:
        """The settings that act only under another one."""
        return {}


class NetworkSettings(Group):
    """The network and the weights that it starts from."""

    backbone: str = Field("resnet18", description=f"timm name or one of: {', '.join(ALIASES)}")
    stem: Literal["auto", "native", "small"] = Field(
        "auto",
        description=(
            "small: a CNN's first downsampling steps removed; auto: small where the last stage would see less than 2x2"
        ),
    )
    img_size: int | None = Field(
        None, ge=32, le=512, description="input side of the network; default: the index's crops as they are"
    )
    patch_size: int | None = Field(
        None, ge=2, le=32, description="side of a ViT's patches; default: 16 from 160 px on, 8 below"
    )
    pretrained: str = Field(
        "none", description="none; timm: the weights timm names, downloaded; or a local .safetensors file"
    )
    pretrained_license: str | None = Field(None, description="terms of a local weights file; recorded with the run")
    init_from: str | None = Field(
        None, description="polish: start from the weights of this run (of the same network and index)"
    )
    attention: Literal["none", "cbam"] = Field(
        "none", description="cbam: light channel and spatial attention after each stage of a CNN"
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth, where the backbone has it")

    def contradictions(self) -> list[str]:
        """Two starts."""
        both = self.pretrained != "none" and self.init_from is not None
        return [*super().contradictions(), *(["pretrained and init_from exclude each other"] if both else [])]

    def owners(self) -> dict[str, Owner]:
        """Of the terms of a weights file, and of stochastic depth."""
        return {
            **super().owners(),
            "pretrained_license": (self.pretrained not in ("none", "timm"), "pretrained FILE"),
            "drop_path": (self.backbone != "cnn", "a backbone with residual blocks"),
        }


class HeadSettings(Group):
    """The head, its scale and its margin."""

    head: Head = Field(
        "arcface",
        description=(
            "arcface, cosface, subcenter: cosine logits with a margin in training; joint: a linear head, trained "
            "beside an ArcFace one"
        ),
    )
    scale: float = Field(10.0, gt=0, le=128, description="s: what cosines are multiplied by")
    margin: float = Field(0.2, ge=0, le=1.0, description="m, after its ramp: radians (cosface: of the cosine)")
    subcenters: int = Field(3, ge=2, le=16, description="centres a class, for the head subcenter")
    joint_weight: float = Field(1.0, gt=0, le=10, description="weight of the ArcFace term beside the head joint")
    plain_logits_epochs: float = Field(2, ge=0, description="epochs without a margin at the start")
    arcface_warmup_epochs: float = Field(4, ge=0, description="epochs over which the margin then grows to m")
    scale_start: float | None = Field(None, gt=0, le=128, description="s at the start; default: no ramp")
    scale_warmup_epochs: float = Field(0, ge=0, description="epochs over which s goes from scale_start to scale")

    @property
    def margined(self) -> bool:
        """Whether training asks for a margin."""
        return self.head != "linear"

    def contradictions(self) -> list[str]:
        """Half of a ramp of the scale."""
        half = (self.scale_start is None) != (self.scale_warmup_epochs == 0)
        text = "scale_start and scale_warmup_epochs belong together: from which s, over how many epochs"
        return [*super().contradictions(), *([text] if half else [])]

    def owners(self) -> dict[str, Owner]:
        """Of margins and their ramps."""
        ramps = [
            "margin",
            "scale",
            "scale_start",
            "scale_warmup_epochs",
            "plain_logits_epochs",
            "arcface_warmup_epochs",
        ]
        return {
            **super().owners(),
            "subcenters": (self.head == "subcenter", "head subcenter"),
            "joint_weight": (self.head == "joint", "head joint"),
            **dict.fromkeys(ramps, (self.margined, "a head with a margin")),
        }


class LossSettings(Group):
    """The loss, its targets, and the class shares that training shows."""

    loss: Literal["cross_entropy", "focal", "balanced_softmax", "logit_adjusted"] = Field(
        "cross_entropy", description="on (margined) logits and soft targets"
    )
    focal_gamma: float = Field(2.0, ge=0, le=10, description="focal loss's gamma")
    logit_adjust_tau: float = Field(1.0, gt=0, le=4, description="strength of logit_adjusted")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target spread over all classes")
    soft_votes: bool = Field(False, description="train on the annotators' votes where the index has them")
    center_weight: float = Field(0.0, ge=0, le=10, description="weight of the center loss; 0: none")
    balanced_sampling: bool | None = Field(
        None, description="draw every class equally often; default: yes, unless the loss corrects for the shares"
    )
    predict_prior: Literal["trained", "natural", "uniform"] = Field(
        "trained",
        description="class shares that predictions assume: as trained, those of the train split, or equal ones",
    )

    @property
    def balanced(self) -> bool:
        """Whether every class is drawn equally often."""
        return self.loss not in PRIOR_FREE if self.balanced_sampling is None else self.balanced_sampling

    def contradictions(self) -> list[str]:
        """Class shares that are corrected for twice."""
        twice = self.balanced_sampling is True and self.loss in PRIOR_FREE
        text = f"{self.loss} with balanced_sampling corrects for the class shares twice; leave one of them out"
        return [*super().contradictions(), *([text] if twice else [])]

    def owners(self) -> dict[str, Owner]:
        """Of the losses' own parameters."""
        return {
            **super().owners(),
            "focal_gamma": (self.loss == "focal", "loss focal"),
            "logit_adjust_tau": (self.loss == "logit_adjusted", "loss logit_adjusted"),
        }


class ExampleSettings(Group):
    """Suspicious labels and hard examples."""

    suspects: str | None = Field(None, description="the folder that `mien suspects` left for this index")
    suspect_treatment: Literal["drop", "downweight", "relabel"] = Field(
        "drop", description="what becomes of suspects: left out, drawn less often, or given the suggested label"
    )
    suspect_weight: float = Field(0.3, ge=0, le=1, description="how often downweight draws a suspect")
    hard_share: float = Field(
        1.0, gt=0, le=1, description="hard-example mining: learn from this share of a batch, its largest losses"
    )

    def owners(self) -> dict[str, Owner]:
        """Of what becomes of suspects."""
        downweight = self.suspects is not None and self.suspect_treatment == "downweight"
        return {
            **super().owners(),
            "suspect_treatment": (self.suspects is not None, "suspects"),
            "suspect_weight": (downweight, "suspect_treatment downweight"),
        }


class OptimizerSettings(Group):
    """The optimiser, its schedule, and what it leaves as it is."""

    optimizer: Literal["adamw", "adamw-safe", "sgd"] = Field(
        "adamw", description="adamw-safe: no fused or foreach kernels; sgd: with Nesterov momentum 0.9"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from each block to the one before"
    )
    weight_decay: float = Field(0.05, ge=0, description="decoupled for adamw; none on biases, norms and scales")
    scheduler: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    warmup_epochs: float = Field(2, ge=0, description="epochs of linear warm-up")
    min_lr: float = Field(1e-5, ge=0, description="floor of the cosine")
    epochs: int = Field(30, ge=1, description="passes over the train rows")
    batch_size: int = Field(64, ge=2, description="images an update, over all processes")
    accumulate: int = Field(1, ge=1, description="parts in which a batch is gone through, where memory is short")
    clip_grad: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")
    sam_rho: float = Field(0.0, ge=0, le=1, description="radius of sharpness-aware minimisation; 0: none")
    ema_decay: float = Field(0.995, ge=0, lt=1, description="moving average of the weights; 0: none")
    freeze_backbone_epochs: float = Field(0, ge=0, description="epochs in which the backbone does not learn")
    freeze_blocks: int = Field(0, ge=0, description="freeze only the stem and this many blocks; 0: the whole backbone")

    def contradictions(self) -> list[str]:
        """Rates, parts of a batch and freezing that cannot be."""
        faults = [
            (self.scheduler == "cosine" and self.min_lr > self.lr, f"min_lr {self.min_lr} is above lr {self.lr}"),
            (
                self.freeze_blocks > 0 and self.freeze_backbone_epochs == 0,
                "freeze_blocks needs freeze_backbone_epochs: for how long",
            ),
            (self.accumulate > self.batch_size, f"accumulate {self.accumulate} is above batch_size {self.batch_size}"),
            (self.batch_size % self.accumulate > 0, "batch_size must be a multiple of accumulate"),
        ]
        return [*super().contradictions(), *(text for wrong, text in faults if wrong)]

    def owners(self) -> dict[str, Owner]:
        """Of the cosine's floor."""
        return {**super().owners(), "min_lr": (self.scheduler == "cosine", "scheduler cosine")}


class AugmentationSettings(Group):
    """What happens to an image before it is learned from."""

    crop_min: float = Field(0.7, ge=0.1, le=1, description="smallest area share of the random resized crop")
    rotate: float = Field(10.0, ge=0, le=45, description="largest rotation, degrees")
    flip: bool = Field(True, description="mirror every second image")
    jitter: float = Field(0.2, ge=0, le=1, description="largest change of brightness and contrast (colour: saturation)")
    clahe: float = Field(0.0, ge=0, le=1, description="chance of a contrast-limited local equalisation")
    randaugment: int = Field(0, ge=0, le=4, description="RandAugment's operations an image; 0: none")
    randaugment_magnitude: float = Field(5.0, ge=0, le=10, description="RandAugment's strength")
    erase: float = Field(0.1, ge=0, le=1, description="chance that a rectangle is erased")
    degrade: float = Field(
        0.0,
        ge=0,
        le=1,
        description="chance of what webcams do: blur, noise, JPEG, low light or resolution, and a box that is off",
    )
    minority_boost: float = Field(
        1.0, ge=1, le=4, description="factor of the augmentation's strength for disgust, fear and sad"
    )

    def owners(self) -> dict[str, Owner]:
        """Of RandAugment's strength."""
        return {**super().owners(), "randaugment_magnitude": (self.randaugment > 0, "randaugment")}


class MixingSettings(Group):
    """How pairs of images are joined."""

    mixing: Literal["none", "mixup", "cutmix", "mixcut"] = Field(
        "none", description="join pairs of images; mixcut: MixUp and CutMix in turn"
    )
    mix_alpha: float = Field(0.2, gt=0, le=10, description="alpha of the mixing share's Beta distribution")
    mix_probability: float = Field(1.0, ge=0, le=1, description="share of batches that are mixed, after the ramp")
    mix_warmup_epochs: float = Field(0, ge=0, description="epochs over which that share grows from 0")
    mix_off_epochs: float = Field(0, ge=0, description="last epochs without mixing")

    def owners(self) -> dict[str, Owner]:
        """Of how often and how much."""
        names = ("mix_alpha", "mix_probability", "mix_warmup_epochs", "mix_off_epochs")
        return {**super().owners(), **dict.fromkeys(names, (self.mixing != "none", "mixing"))}


class RunSettings(Group):
    """How a training is run, watched and saved."""

    amp: Literal["auto", "no", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto: bf16 where the device and the backbone gain by it"
    )
    eval_every: int = Field(1, ge=1, description="epochs between validations")
    eval_raw: bool = Field(True, description="validate the raw weights too, beside their moving average")
    patience: int = Field(0, ge=0, description="stop after this many validations without a better one; 0: never")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of initialisation, order and augmentation")
    save_every_steps: int = Field(200, ge=1, description="steps between saves; a kill loses at most these")
    tracker: Literal["none", "tensorboard", "mlflow", "wandb"] = Field("none", description="also log there")
