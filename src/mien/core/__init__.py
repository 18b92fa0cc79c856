"""What every room may use: errors, labels, configuration, artefacts, images, geometry."""
