"""Settings of `mien suspects`."""

from __future__ import annotations

from pydantic import Field

from mien.core.config.base import StageConfig


class SuspectsConfig(StageConfig):
    """How labels are put in doubt."""

    folds: int = Field(5, ge=2, le=20, description="networks, each predicting the part of train that it did not see")
    sheet: int = Field(96, ge=1, le=1000, description="images on the contact sheet, the most doubtful first")
