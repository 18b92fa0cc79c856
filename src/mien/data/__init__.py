"""Images on disk to one clean index with packed pixels."""
