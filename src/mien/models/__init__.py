"""Models that ship with mien: `models.json` names them, README.md is their card, LICENSE their terms."""
