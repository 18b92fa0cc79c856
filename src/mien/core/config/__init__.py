"""One frozen model a stage; TOML keys, flags and `--help` come from the same text."""

from mien.core.config.base import StageConfig, read_toml
from mien.core.config.bench import LatencyConfig
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.config.judge import (
    CalibrateConfig,
    EnsembleConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    PredictConfig,
)
from mien.core.config.live import DetectConfig, LiveConfig, LiveRules, VideoConfig
from mien.core.config.noise import SuspectsConfig
from mien.core.config.recipes import resolve
from mien.core.config.study import StudyConfig, load_study
from mien.core.config.train import DistillConfig, TrainConfig

__all__ = [
    "CalibrateConfig",
    "DetectConfig",
    "DistillConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ImportConfig",
    "IndexConfig",
    "LatencyConfig",
    "LiveConfig",
    "LiveRules",
    "PredictConfig",
    "StageConfig",
    "StudyConfig",
    "SuspectsConfig",
    "TrainConfig",
    "VideoConfig",
    "WorkConfig",
    "load_study",
    "read_toml",
    "resolve",
]
