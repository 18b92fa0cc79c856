"""Studies: the graph of stages, and the runner that does what is missing."""
