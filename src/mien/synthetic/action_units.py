"""Expressions as facial action units with varying strength, so that classes overlap a little.

Prototypes follow EMFACS (Friesen & Ekman 1983) and Matsumoto et al. 2008, table 13.1; each unit is
present with a probability and scaled by one strength a face, plus small random activity everywhere.
"""

from __future__ import annotations

import numpy as np

UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 25, 26)
# label -> {unit: (chance that it is present, relative strength)}
PROTOTYPES: dict[str, dict[int, tuple[float, float]]] = {
    "angry": {
        4: (1.0, 1.0),
        5: (0.5, 0.5),
        7: (0.9, 0.9),
        17: (0.4, 0.6),
        23: (0.85, 1.0),
        10: (0.2, 0.4),
        25: (0.15, 0.8),
    },
    "disgust": {
        9: (0.95, 1.0),
        10: (0.85, 0.9),
        4: (0.4, 0.4),
        6: (0.3, 0.4),
        15: (0.4, 0.5),
        16: (0.4, 0.6),
        17: (0.4, 0.6),
        25: (0.3, 0.5),
    },
    "fear": {
        1: (1.0, 1.0),
        2: (0.7, 0.6),
        4: (0.8, 0.55),
        5: (0.95, 1.0),
        7: (0.3, 0.3),
        20: (0.95, 1.0),
        25: (0.85, 0.8),
        26: (0.4, 0.35),
    },
    "happy": {12: (1.0, 1.0), 6: (0.85, 0.9), 25: (0.6, 1.0), 26: (0.15, 0.3)},
    "neutral": {},
    "sad": {1: (1.0, 0.9), 4: (0.7, 0.5), 15: (1.0, 1.0), 17: (0.5, 0.7), 7: (0.35, 0.4)},
    "surprise": {1: (1.0, 1.0), 2: (1.0, 1.0), 5: (0.85, 0.8), 25: (0.95, 0.6), 26: (0.95, 1.0)},
}


def activate(label: str, rng: np.random.Generator) -> dict[int, float]:
    """Strength of every unit in [0, 1] for one face of this class."""
    units = {unit: float(abs(rng.normal(0, 0.045))) for unit in UNITS}
    strength = float(np.clip(rng.normal(0.78, 0.22), 0.25, 1.15))
    for unit, (chance, relative) in PROTOTYPES[label].items():
        if rng.random() < chance:
            units[unit] += strength * relative * float(rng.uniform(0.75, 1.15))
    return {unit: min(1.0, value) for unit, value in units.items()}
