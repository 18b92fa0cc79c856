"""The only list of classes, and how each data set's own names and numbers map to it.

A wrong order is the field's commonest bug: every source maps its labels through this file.
"""

from __future__ import annotations

from mien.core.errors import InputError, nearest

LABELS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
N_CLASSES = len(LABELS)
INDEX: dict[str, int] = {name: i for i, name in enumerate(LABELS)}

# The report's set. By share sad is no minority (14.4 %); the set is kept for comparison.
MINORITY: tuple[str, ...] = ("disgust", "fear", "sad")

# FER2013 column `emotion` (ICML 2013 challenge).
FER2013: dict[int, str] = dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")))

# Vote columns of fer2013new.csv (FER+) in their order; None: no class of ours.
FERPLUS: dict[str, str | None] = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "contempt": None,
    "unknown": None,
    "NF": None,
}

# RAF-DB basic, EmoLabel/list_patition_label.txt.
RAFDB: dict[int, str] = dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), start=1))

# AffectNet; from 7 on: contempt, none, uncertain, no face (the last three in the CSV release alone).
AFFECTNET: dict[int, str | None] = dict(
    enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", None, None, None, None))
)
AFFECTNET_NONE: dict[int, str] = {7: "contempt", 8: "none", 9: "uncertain", 10: "no_face"}

# ExpW label.lst has FER2013's numbers.
EXPW = FER2013

ALIASES: dict[str, str] = {
    "anger": "angry",
    "mad": "angry",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "calm": "neutral",
    "sadness": "sad",
    "unhappy": "sad",
    "suprise": "surprise",
    "surprised": "surprise",
} | {name: name for name in LABELS}

# How tables write that there is no label. Never a class: whether "none" means no expression or no annotation is
# unknown.
MISSING = frozenset({"", "none", "null", "nan", "na", "n/a", "-"})


def is_missing(name: str) -> bool:
    """Whether a source's text says that there is no label."""
    return name.strip().lower() in MISSING


def parse_label(name: str) -> str:
    """Map a class name or a common alias (any case) to one of `LABELS`."""
    label = ALIASES.get(name.strip().lower())
    if label is None:
        raise InputError(
            f"Label {name!r} is none of the seven classes.",
            rule=f"Classes: {', '.join(LABELS)} (and aliases such as 'happiness').",
            fix=nearest(name.strip().lower(), ALIASES).strip(),
        )
    return label


def parse_or_drop(name: str, drop: frozenset[str]) -> tuple[str | None, str]:
    """(class, "") of a source's label, or (None, why it gives none): missing, or one of `drop` (lower case).

    Raises `InputError` for any other name.
    """
    if is_missing(name):
        return None, "no_label"
    text = name.strip().lower()
    if text in drop:
        return None, text
    try:
        return parse_label(name), ""
    except InputError as error:
        fix = f"{error.fix} To leave such rows out, counted by this name: --drop-labels {text!r}.".strip()
        raise InputError(error.seen, rule=error.rule, fix=fix) from None
