"""One file a stage. A stage joins packages and artefacts; it never imports another stage."""
