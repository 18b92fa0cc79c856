"""Networks: backbones of timm and ours, heads, and the weights they start from."""
