"""Settings of `mien train` and `mien distill`; `recipes.py` joins them with a recipe's."""

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


class TrainConfig(StageConfig):
    """How a network is trained. Built-in defaults; a recipe, a study and flags go over them in this order."""

    # the network
    backbone: str = Field("resnet18", description=f"timm name or one of: {', '.join(ALIASES)}")
    stem: Literal["auto", "native", "small"] = Field(
        "auto",
        description="small: a CNN's first downsampling steps removed; auto: small where the last stage would see less than 2x2",
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
    # head and loss
    head: Head = Field(
        "arcface",
        description="arcface, cosface, subcenter: cosine logits with a margin in training; joint: a linear head, trained beside an ArcFace one",
    )
    scale: float = Field(10.0, gt=0, le=128, description="s: what cosines are multiplied by")
    margin: float = Field(0.2, ge=0, le=1.0, description="m, after its ramp: radians (cosface: of the cosine)")
    subcenters: int = Field(3, ge=2, le=16, description="centres a class, for the head subcenter")
    joint_weight: float = Field(1.0, gt=0, le=10, description="weight of the ArcFace term beside the head joint")
    plain_logits_epochs: float = Field(2, ge=0, description="epochs without a margin at the start")
    arcface_warmup_epochs: float = Field(4, ge=0, description="epochs over which the margin then grows to m")
    scale_start: float | None = Field(None, gt=0, le=128, description="s at the start; default: no ramp")
    scale_warmup_epochs: float = Field(0, ge=0, description="epochs over which s goes from scale_start to scale")
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
    # labels in doubt, hard examples
    suspects: str | None = Field(None, description="the folder that `mien suspects` left for this index")
    suspect_treatment: Literal["drop", "downweight", "relabel"] = Field(
        "drop", description="what becomes of suspects: left out, drawn less often, or given the suggested label"
    )
    suspect_weight: float = Field(0.3, ge=0, le=1, description="how often downweight draws a suspect")
    hard_share: float = Field(
        1.0, gt=0, le=1, description="hard-example mining: learn from this share of a batch, its largest losses"
    )
    # the optimiser and its schedule
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
    # augmentation
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
    mixing: Literal["none", "mixup", "cutmix", "mixcut"] = Field(
        "none", description="join pairs of images; mixcut: MixUp and CutMix in turn"
    )
    mix_alpha: float = Field(0.2, gt=0, le=10, description="alpha of the mixing share's Beta distribution")
    mix_probability: float = Field(1.0, ge=0, le=1, description="share of batches that are mixed, after the ramp")
    mix_warmup_epochs: float = Field(0, ge=0, description="epochs over which that share grows from 0")
    mix_off_epochs: float = Field(0, ge=0, description="last epochs without mixing")
    # the run
    amp: Literal["auto", "no", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto: bf16 where the device and the backbone gain by it"
    )
    eval_every: int = Field(1, ge=1, description="epochs between validations")
    eval_raw: bool = Field(True, description="validate the raw weights too, beside their moving average")
    patience: int = Field(0, ge=0, description="stop after this many validations without a better one; 0: never")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of initialisation, order and augmentation")
    save_every_steps: int = Field(200, ge=1, description="steps between saves; a kill loses at most these")
    tracker: Literal["none", "tensorboard", "mlflow", "wandb"] = Field("none", description="also log there")

    @property
    def balanced(self) -> bool:
        """Whether every class is drawn equally often."""
        return self.loss not in PRIOR_FREE if self.balanced_sampling is None else self.balanced_sampling

    def identity(self) -> dict[str, object]:
        """The settings that decide a run's results, for its fingerprint.

        A setting that came after the first runs counts only where it acts, so that these keep their fingerprints.
        """
        settings = self.model_dump(mode="json", exclude=set(NEUTRAL))
        return {key: value for key, value in settings.items() if LATER.get(key, ...) != value}

    def contradictions(self) -> list[str]:
        """Settings that do not go together, in words; to be asked once recipe, study and flags are joined."""
        faults = [
            (self.scheduler == "cosine" and self.min_lr > self.lr, f"min_lr {self.min_lr} is above lr {self.lr}"),
            (
                self.balanced_sampling is True and self.loss in PRIOR_FREE,
                f"{self.loss} with balanced_sampling corrects for the class shares twice; leave one of them out",
            ),
            (
                self.freeze_blocks > 0 and self.freeze_backbone_epochs == 0,
                "freeze_blocks needs freeze_backbone_epochs: for how long",
            ),
            (
                (self.scale_start is None) != (self.scale_warmup_epochs == 0),
                "scale_start and scale_warmup_epochs belong together: from which s, over how many epochs",
            ),
            (self.pretrained != "none" and self.init_from is not None, "pretrained and init_from exclude each other"),
            (self.accumulate > self.batch_size, f"accumulate {self.accumulate} is above batch_size {self.batch_size}"),
            (self.sam_rho > 0 and self.amp == "fp16", "sam_rho with amp fp16 is not supported; use bf16"),
            (
                self.mixing != "none" and (self.batch_size // self.accumulate) % 2 == 1,
                "mixing joins images in pairs: batch_size / accumulate must be even",
            ),
            (
                self.hard_share < 1 and self.predict_prior != "trained",
                f"predict_prior {self.predict_prior} needs the class shares that training shows, and hard_share {self.hard_share} leaves them unknown",
            ),
            (self.batch_size % self.accumulate > 0, "batch_size must be a multiple of accumulate"),
        ]
        return [text for wrong, text in faults if wrong]

    def oddities(self, given: set[str]) -> list[str]:
        """What is allowed and most likely not meant; `given` are the settings that a user named."""
        margined, n = self.head != "linear", self.epochs
        said = [
            (
                margined and self.margin > 0 and self.plain_logits_epochs >= n,
                f"the margin never starts: plain_logits_epochs {self.plain_logits_epochs:g} of {n} epochs",
            ),
            (
                self.warmup_epochs >= n,
                f"the learning rate never leaves its warm-up: warmup_epochs {self.warmup_epochs:g} of {n} epochs",
            ),
            (
                self.freeze_backbone_epochs >= n,
                f"what is frozen never learns: freeze_backbone_epochs {self.freeze_backbone_epochs:g} of {n} epochs",
            ),
            (
                self.mixing != "none" and self.mix_off_epochs >= n,
                f"nothing is ever mixed: mix_off_epochs {self.mix_off_epochs:g} of {n} epochs",
            ),
        ]
        needs: dict[str, tuple[bool, str]] = {
            "focal_gamma": (self.loss == "focal", "loss focal"),
            "logit_adjust_tau": (self.loss == "logit_adjusted", "loss logit_adjusted"),
            "subcenters": (self.head == "subcenter", "head subcenter"),
            "joint_weight": (self.head == "joint", "head joint"),
            **dict.fromkeys(
                (
                    "margin",
                    "scale",
                    "scale_start",
                    "scale_warmup_epochs",
                    "plain_logits_epochs",
                    "arcface_warmup_epochs",
                ),
                (margined, "a head with a margin"),
            ),
            **dict.fromkeys(
                ("mix_alpha", "mix_probability", "mix_warmup_epochs", "mix_off_epochs"),
                (self.mixing != "none", "mixing"),
            ),
            "randaugment_magnitude": (self.randaugment > 0, "randaugment"),
            "min_lr": (self.scheduler == "cosine", "scheduler cosine"),
            "pretrained_license": (self.pretrained not in ("none", "timm"), "pretrained FILE"),
            "suspect_treatment": (self.suspects is not None, "suspects"),
            "suspect_weight": (
                self.suspects is not None and self.suspect_treatment == "downweight",
                "suspect_treatment downweight",
            ),
            "drop_path": (self.backbone != "cnn", "a backbone with residual blocks"),
            **self._owners(),
        }
        idle = [
            f"{key} does nothing without {owner}" for key, (acts, owner) in needs.items() if key in given and not acts
        ]
        return [text for wrong, text in said if wrong] + idle

    def _owners(self) -> dict[str, tuple[bool, str]]:
        """Further settings that act only under another one: {setting: (whether it acts, its owner)}."""
        return {}


class DistillConfig(TrainConfig):
    """How a student is taught: Hinton et al. 2015, arXiv 1503.02531, with the teacher on the same crop."""

    backbone: str = Field(
        "mobilenetv3_small", description="the student; " + str(TrainConfig.model_fields["backbone"].description)
    )
    head: Head = Field("linear", description=TrainConfig.model_fields["head"].description)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description=TrainConfig.model_fields["label_smoothing"].description)
    kd_loss: Literal["kl", "standardized", "dkd"] = Field(
        "kl",
        description="kl: of the softened probabilities; standardized: of z-scored logits; dkd: decoupled into the target class and the others",
    )
    kd_temperature: float = Field(2.0, gt=0, le=20, description="softens teacher and student in the distillation loss")
    kd_weight: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of the distillation loss; the rest is the label's (with --soft-votes: the votes') loss",
    )
    dkd_alpha: float = Field(1.0, ge=0, le=10, description="dkd: weight of the target class against all others")
    dkd_beta: float = Field(2.0, ge=0, le=10, description="dkd: weight of the differences among the other classes")
    kd_views: int = Field(
        0,
        ge=0,
        le=1000,
        description="the fast path: this many augmented views of each image, shown in turn, of which the teacher's log-probabilities are computed once and kept; 0: the teacher sees every batch",
    )

    def _owners(self) -> dict[str, tuple[bool, str]]:
        dkd = (self.kd_loss == "dkd" and self.kd_weight > 0, "kd_loss dkd")
        taught = (self.kd_weight > 0, "kd_weight above 0")
        return {"dkd_alpha": dkd, "dkd_beta": dkd, "kd_temperature": taught, "kd_loss": taught, "kd_views": taught}


# What a polish does not take over from the run that it starts from.
OF_THE_RUN = (
    "pretrained",
    "pretrained_license",
    "init_from",
    "plain_logits_epochs",
    "arcface_warmup_epochs",
    "scale_start",
    "scale_warmup_epochs",
    "lr",
    "scheduler",
    "warmup_epochs",
    "min_lr",
    "epochs",
    "freeze_backbone_epochs",
    "freeze_blocks",
    "eval_every",
    "eval_raw",
    "patience",
    "seed",
    "save_every_steps",
    "tracker",
)

# What never changes a result, so that a run may go on under other values. `init_from`, `pretrained` and
# `suspects` enter a run's fingerprint as the hash of what they name.
NEUTRAL = ("save_every_steps", "tracker", "init_from", "pretrained", "pretrained_license", "suspects")

LATER = {"degrade": 0.0}


def check_backbone(name: str, known: list[str]) -> None:
    """Raise a `UsageError` with the nearest name unless `name` is an alias or in `known`."""
    if name not in ALIASES and name not in known:
        raise UsageError(
            f"No backbone {name!r}.{nearest(name, [*ALIASES, *known])}",
            rule="Backbones are timm's names or our aliases.",
        )
