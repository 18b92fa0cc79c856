"""Settings of predict, calibrate, ensemble, evaluate and export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mien.core.config.base import StageConfig
from mien.core.errors import nearest
from mien.core.labels import LABELS, MINORITY


class PredictConfig(StageConfig):
    """How logits are computed."""

    batch_size: int = Field(256, ge=1, description="images a step")


class DecideConfig(StageConfig):
    """When a model answers: thresholds and conformal sets, fitted on calib's part for thresholds."""

    coverage: float = Field(0.9, gt=0, le=1, description="share of images that the threshold lets answer")
    precision: float | None = Field(
        None, gt=0, lt=1, description="raise the threshold until answers are right at least this often"
    )
    max_fpr: tuple[str, ...] = Field(
        ("minority=0.1",),
        description="CLASS=RATE (or minority=, all=): largest share of other classes' images that may be named so",
    )
    alpha: float = Field(0.1, gt=0, lt=1, description="conformal sets miss the label this often")

    @field_validator("max_fpr")
    @classmethod
    def _bounds_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _bounds(value)
        return value

    @property
    def fpr_bounds(self) -> dict[str, float]:
        """The wanted bound of each class that has one."""
        return _bounds(self.max_fpr)


def _bounds(entries: tuple[str, ...]) -> dict[str, float]:
    groups = {"minority": MINORITY, "all": LABELS} | {name: (name,) for name in LABELS}
    bounds: dict[str, float] = {}
    for entry in entries:
        name, _, rate = entry.partition("=")
        if name not in groups:
            raise ValueError(f"{name!r} is no class, minority or all.{nearest(name, groups)}")
        try:
            value = float(rate)
        except ValueError:
            value = -1.0
        if not 0 < value < 1:
            raise ValueError(f"{entry!r}: CLASS=RATE with a rate between 0 and 1")
        bounds |= dict.fromkeys(groups[name], value)
    return bounds


class CalibrateConfig(DecideConfig):
    """How logits become probabilities, and when they are answers."""

    method: Literal["auto", "temperature", "vector", "dirichlet", "sweep"] = Field(
        "auto",
        description=(
            "auto: temperature unless vector or Dirichlet scaling is significantly better on held-out folds; sweep: "
            "the best of 0.8 to 1.2 as in the report"
        ),
    )
    prior: str = Field(
        "calib",
        description=(
            "class shares that probabilities assume: those of calib, uniform, or seven numbers with commas in the "
            "order of the classes"
        ),
    )
    folds: int = Field(5, ge=2, le=20, description="cross-validation folds in which a richer map must pay")
    resamples: int = Field(200, ge=20, description="bootstrap resamples for the temperature's interval")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of folds and bootstrap")

    @field_validator("prior")
    @classmethod
    def _prior_parses(cls, value: str) -> str:
        parse_prior(value)
        return value


def parse_prior(text: str) -> tuple[float, ...] | None:
    """The class shares that a setting names; None for those of the rows."""
    if text == "calib":
        return None
    if text == "uniform":
        return tuple(1 / len(LABELS) for _ in LABELS)
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != len(LABELS) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-3:
        raise ValueError(f"calib, uniform, or {len(LABELS)} positive shares that sum to 1 ({', '.join(LABELS)})")
    return tuple(share / sum(shares) for share in shares)


class EnsembleConfig(DecideConfig):
    """Which combinations are tried and how one is selected."""

    max_members: int = Field(3, ge=1, le=8, description="largest combination")
    pools: tuple[Literal["probability", "logit"], ...] = Field(
        ("probability", "logit"), min_length=1, description="how members are averaged"
    )
    searches: tuple[Literal["nll", "grid", "greedy"], ...] = Field(
        ("nll",),
        description=(
            "how weights are searched; the best is used where it beats equal weights on held-out rows and a score test "
            "rejects equal ones"
        ),
    )
    fixed: tuple[str, ...] = Field(
        (),
        exclude_if=lambda entries: not entries,  # ensembles from before there were fixed weights stay the same
        description="NAME=WEIGHT,NAME=WEIGHT: also join these runs with these weights, beside the searched ones",
    )
    folds: int = Field(
        5, ge=2, description="cross-validation folds on calib in which searched weights must beat equal ones"
    )
    resamples: int = Field(1000, ge=100, description="bootstrap resamples for intervals")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of folds and bootstrap")

    @field_validator("fixed")
    @classmethod
    def _fixed_parses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            parse_weights(entry)
        return value


def parse_weights(text: str) -> dict[str, float]:
    """The runs and weights of `NAME=WEIGHT,NAME=WEIGHT`; `ValueError` unless they are positive with sum 1."""
    pairs = [part.split("=") for part in text.split(",")]
    try:
        weights = {name.strip(): float(weight) for name, weight in pairs}
    except ValueError:
        weights = {}
    if len(weights) < max(2, len(pairs)) or min(weights.values()) <= 0 or abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError(f"{text!r}: NAME=WEIGHT of at least two runs, with positive weights that sum to 1")
    return weights


class EvaluateConfig(StageConfig):
    """How test is scored."""

    batch_size: int = Field(256, ge=1, description="images a step")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples for intervals")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the bootstrap")
    corruptions: bool = Field(
        False, description="judge on blurred, noisy, dark, covered, small and turned test images too"
    )
    corruption_pictures: int = Field(2000, ge=30, description="test images that are corrupted, drawn by the seed")

    def figure_settings(self) -> dict[str, object]:
        """The settings that change the figures: not how many images go through a network at once."""
        unused = set() if self.corruptions else {"corruption_pictures"}
        return self.model_dump(mode="json", exclude={"batch_size", *unused})


class ExportConfig(StageConfig):
    """How the ONNX file is made and checked."""

    int8: bool = Field(
        False,
        description=(
            "static int8 quantisation: ranges from train images, calibration and thresholds of its own from calib; "
            "refused where val shows that it loses"
        ),
    )
    fp16: bool = Field(
        False,
        description=(
            "store the weights in half precision: half the size; they are turned to single precision as the file is "
            "loaded"
        ),
    )
    check: int = Field(256, ge=8, description="val images on which parity of the float model with torch must hold")
    tolerance: float = Field(1e-3, gt=0, description="largest probability difference of the float model")


class ImportConfig(StageConfig):
    """How a file of predictions made elsewhere is read."""

    kind: Literal["auto", "logits", "probabilities"] = Field(
        "auto", description="what the numbers are; auto: as the columns' names say (logit_angry, prob_angry)"
    )
    id_column: str = Field("image_id", description="the column (or array) of the images' names")
    label_column: str = Field("label", description="the column of the true classes; with --index it may be absent")
    split_column: str = Field("split", description="the column of the splits")
    values: str = Field("logits", description="in .npz files: the array (n, 7) of the numbers")
    column: tuple[str, ...] = Field((), description="CLASS=COLUMN, where a class's column has another name")
    classes: str | None = Field(
        None, description="order of the classes in an array, with commas; .npz files may hold it as `classes`"
    )
    label_numbers: Literal["none", "mien", "fer2013", "rafdb", "affectnet", "expw"] = Field(
        "none", description="whose numbers the labels are, where they are numbers"
    )
    split: Literal["val", "calib", "test"] | None = Field(None, description="the split of all rows, without a column")
    split_name: tuple[str, ...] = Field((), description="THEIRS=OURS, e.g. validation=val")
    head: Literal["unknown", "linear"] = Field(
        "unknown", description="linear: the logits are no cosines, however small they are"
    )
    backbone: str = Field("imported", description="what the model is, for tables")
    parameters: int | None = Field(None, ge=1, description="how many parameters it has, for the selection and tables")
