"""One training: its rows, batches, objective, optimiser, validation and exact resume."""
