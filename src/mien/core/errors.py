"""One tree of errors. Each message says what was seen, what the rule is, and how to mend it.

MienError                    base; exit code 1
├── UsageError               wrong flag, key, path or combination; exit code 2
│   └── ConfigError          a configuration that does not validate
├── InputError               data that is not what it claims to be; exit code 2
│   ├── RejectedImage        one image that cannot be decoded safely; carries a reason
│   └── ArtifactError        an artefact that is missing, incomplete or of another format
├── SplitError               a row used for a decision its split may not take; exit code 2
├── CalibrationError         a calibration that cannot be right; exit code 1
│   └── TemperatureNotFound  the best temperature lies on an edge of its range
└── TrainingDiverged         a non-finite loss or a collapse; exit code 1
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class MienError(Exception):
    """Base of all errors that a user can meet."""

    exit_code = 1

    def __init__(self, seen: str, *, rule: str = "", fix: str = "") -> None:
        """`seen` is the observation, `rule` what holds here, `fix` what to do."""
        self.seen, self.rule, self.fix = seen, rule, fix
        super().__init__(" ".join(part for part in (seen, rule, fix) if part))


class UsageError(MienError):
    """The command or call itself is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration with unknown keys or values outside their range."""


class InputError(MienError):
    """Data that is not what it claims to be."""

    exit_code = 2


REMEDIES = {
    "missing": "Name a file that exists and can be read.",
    "empty": "Copy it again.",
    "unknown_format": "Save it as PNG or JPEG; BMP, WebP, GIF, TIFF and PPM are read too.",
    "too_large": "Make it smaller: at most 25 megapixels.",
    "too_small": "Take a larger one: at least 16 pixels a side.",
    "animated": "Save one of its frames.",
    "sixteen_bit": "Save it with 8 bits a channel.",
    "cmyk": "Save it as RGB.",
    "transparent": "Save it without transparency.",
    "truncated": "It is damaged: copy it again, or save it anew.",
}


class RejectedImage(InputError):
    """An image that is not used; `reason` is one of `mien.core.images.REASONS`, `detail` what was seen in this one."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}.", fix=REMEDIES.get(reason, ""))


class ArtifactError(InputError):
    """An artefact that is missing, incomplete, altered or of another format."""


class SplitError(MienError):
    """A row used for a decision that its split may not take."""

    exit_code = 2


class CalibrationError(MienError):
    """A calibration that cannot be right, e.g. an optimum on the edge of its range."""


class TemperatureNotFound(CalibrationError):
    """The best temperature lies on an edge of the range that was searched."""


class TrainingDiverged(MienError):
    """Training produced a non-finite loss or collapsed; the message names the step."""


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    match = get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
