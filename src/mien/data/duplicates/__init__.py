"""Copies among images: perceptual hashes, the search among them, verification on the pixels, clusters."""
