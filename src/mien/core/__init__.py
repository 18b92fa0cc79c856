"""What every package may use: errors, labels, configuration, artefacts, images, geometry."""
