"""Pure functions on arrays: metrics, calibration, pooling, selection, statistics. No torch, no files."""
