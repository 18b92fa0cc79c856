"""Settings of `mien train` and `mien distill`; `recipes.py` joins them with a recipe's."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mien.core.config.train_groups import (
    AugmentationSettings,
    ExampleSettings,
    Head,
    HeadSettings,
    LossSettings,
    MixingSettings,
    NetworkSettings,
    OptimizerSettings,
    Owner,
    RunSettings,
)


class TrainConfig(
    RunSettings,
    MixingSettings,
    AugmentationSettings,
    OptimizerSettings,
    ExampleSettings,
    LossSettings,
    HeadSettings,
    NetworkSettings,
):
    """How a network is trained. Built-in defaults; a recipe, a study and flags go over them in this order."""

    def identity(self) -> dict[str, Any]:
        """The settings that decide a run's results, for its fingerprint.

        A setting that came after the first runs counts only where it acts, so that these keep their fingerprints.
        """
        settings = self.model_dump(mode="json", exclude=set(NEUTRAL))
        return {key: value for key, value in settings.items() if LATER.get(key, ...) != value}

    def contradictions(self) -> list[str]:
        """Settings that do not go together, in words; to be asked once recipe, study and flags are joined."""
        faults = [
            (self.sam_rho > 0 and self.amp == "fp16", "sam_rho with amp fp16 is not supported; use bf16"),
            (
                self.mixing != "none" and (self.batch_size // self.accumulate) % 2 == 1,
                "mixing joins images in pairs: batch_size / accumulate must be even",
            ),
            (
                self.hard_share < 1 and self.predict_prior != "trained",
                f"predict_prior {self.predict_prior} needs the class shares that training shows, and hard_share "
                f"{self.hard_share} leaves them unknown",
            ),
        ]
        return [*super().contradictions(), *(text for wrong, text in faults if wrong)]

    def oddities(self, given: set[str]) -> list[str]:
        """What is allowed and most likely not meant; `given` are the settings that a user named."""
        n = self.epochs
        checks = [
            (
                self.margined and self.margin > 0 and self.plain_logits_epochs >= n,
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
        idle = [
            f"{key} does nothing without {owner}"
            for key, (acts, owner) in self.owners().items()
            if key in given and not acts
        ]
        return [text for wrong, text in checks if wrong] + idle


class DistillConfig(TrainConfig):
    """How a student is taught: Hinton et al. 2015, arXiv 1503.02531, with the teacher on the same crop."""

    backbone: str = Field(
        "mobilenetv3_small", description="the student; " + str(TrainConfig.model_fields["backbone"].description)
    )
    head: Head = Field("linear", description=TrainConfig.model_fields["head"].description)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description=TrainConfig.model_fields["label_smoothing"].description)
    kd_loss: Literal["kl", "standardized", "dkd"] = Field(
        "kl",
        description=(
            "kl: of the softened probabilities; standardized: of z-scored logits; dkd: decoupled into the target class "
            "and the others"
        ),
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
        description=(
            "the fast path: this many augmented views of each image, shown in turn, of which the teacher's "
            "log-probabilities are computed once and kept (with kd_weight 0: a plain twin on the same views); 0: the "
            "teacher sees every batch"
        ),
    )

    def identity(self) -> dict[str, object]:
        """As of a training; a plain twin on fixed views is no run of before, when such a student saw fresh ones."""
        twin = {"fixed_views_without_teacher": True} if self.kd_views and not self.kd_weight else {}
        return super().identity() | twin

    def owners(self) -> dict[str, Owner]:
        """Of what a teacher and its loss need."""
        dkd = (self.kd_loss == "dkd" and self.kd_weight > 0, "kd_loss dkd")
        taught = (self.kd_weight > 0, "kd_weight above 0")
        return {
            **super().owners(),
            "dkd_alpha": dkd,
            "dkd_beta": dkd,
            "kd_temperature": taught,
            "kd_loss": taught,
        }


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
