"""torch: backbones, heads, losses, augmentation, optimisers and the training loop."""
