"""Default settings of each family of backbones; each file names its source."""
