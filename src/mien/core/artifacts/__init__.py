"""One module per kind of artefact: its schema, hash, provenance, crash-safe write and checked read.

Stages meet only through what stands here; nothing else writes a file that another stage reads.
"""
