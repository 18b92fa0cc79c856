"""One file a stage. A stage joins rooms and artefacts; it never imports another stage."""
