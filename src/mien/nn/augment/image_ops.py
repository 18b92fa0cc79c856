"""Operations on batches of images: resampling, and equalisation of the whole or in tiles (CLAHE)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)


def _on_luma(x: Tensor, change: Tensor, grey: Tensor) -> Tensor:
    """The image whose grey values became `change`: colours keep their distance from grey."""
    return change if x.shape[1] == 1 else (x + change - grey).clamp(0, 255)


def to_grey(x: Tensor) -> Tensor:
    """Luma (b, 1, s, s) of images (b, 1 or 3, s, s)."""
    return x if x.shape[1] == 1 else (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def equalize(x: Tensor) -> Tensor:
    """Global histogram equalisation of images (b, 1 or 3, s, s) with values 0-255."""
    grey = to_grey(x)
    levels = grey.round().clamp(0, 255).long().flatten(1)
    cdf = _histogram(levels).cumsum(1)
    low = cdf.masked_fill(cdf == 0, torch.inf).amin(1, keepdim=True)
    table = ((cdf - low) / (cdf[:, -1:] - low).clamp_min(1) * 255).round().clamp(0, 255)
    flat = (cdf[:, -1:] - low) < 1  # one grey value only: nothing to equalise
    out = torch.where(flat, levels.to(x.dtype), table.gather(1, levels)).view_as(grey)
    return _on_luma(x, out, grey)


def clahe(x: Tensor, *, tiles: int = 4, limit: float = 2.0) -> Tensor:
    """Contrast-limited adaptive equalisation (Zuiderveld 1994, Graphics Gems IV) of (b, 1 or 3, s, s), 0-255.

    Histograms of `tiles`² tiles are clipped at `limit` times their mean height, the excess is spread over
    all levels, and each pixel is mapped by the four nearest tiles' tables, as OpenCV's CLAHE does it.
    """
    grey = to_grey(x)
    b, _, h, w = grey.shape
    padded = F.pad(grey, (0, -w % tiles, 0, -h % tiles), mode="reflect") if w % tiles or h % tiles else grey
    th, tw = padded.shape[2] // tiles, padded.shape[3] // tiles
    levels = padded.round().clamp(0, 255).long()[:, 0]
    blocks = levels.view(b, tiles, th, tiles, tw).transpose(2, 3).reshape(b * tiles * tiles, th * tw)
    counts = _histogram(blocks)
    top = max(1.0, float(int(limit * th * tw / 256)))
    excess = (counts - top).clamp_min(0).sum(1, keepdim=True)
    # OpenCV's way with what does not go into all 256 levels evenly: one more in every so many, from the first.
    even, rest = (excess / 256).floor(), excess % 256
    every = (256 / rest.clamp_min(1)).floor().clamp_min(1)
    number = torch.arange(256, device=x.device)
    more = (number % every == 0) & (number // every < rest)
    table = ((counts.clamp(max=top) + even + more).cumsum(1) * (255 / (th * tw))).round().clamp(0, 255)
    table = table.view(b, tiles * tiles, 256)
    y0, y1, fy = _between(h, th, tiles, x.device)
    x0, x1, fx = _between(w, tw, tiles, x.device)
    inside = levels[:, :h, :w]

    def mapped(rows: Tensor, columns: Tensor) -> Tensor:
        tile = (rows.view(-1, 1) * tiles + columns.view(1, -1)).expand(b, h, w)
        return table.flatten(1).gather(1, (tile * 256 + inside).flatten(1)).view(b, h, w)

    fy, fx = fy.view(1, -1, 1), fx.view(1, 1, -1)
    upper = mapped(y0, x0) * (1 - fx) + mapped(y0, x1) * fx
    lower = mapped(y1, x0) * (1 - fx) + mapped(y1, x1) * fx
    return _on_luma(x, (upper * (1 - fy) + lower * fy).round().unsqueeze(1), grey)


def _histogram(levels: Tensor) -> Tensor:
    """Counts (n, 256) of grey values (n, pixels)."""
    counts = torch.zeros(len(levels), 256, device=levels.device)
    return counts.scatter_add_(1, levels, torch.ones((), device=levels.device).expand(levels.shape))


def _between(length: int, tile: int, tiles: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel the tiles before and after its place, and how far it lies between their centres."""
    place = torch.arange(length, device=device) / tile - 0.5
    first = place.floor()
    return first.clamp_min(0).long(), (first + 1).clamp(max=tiles - 1).long(), place - first


def warp(x: Tensor, theta: Tensor) -> Tensor:
    """Resample images (b, c, s, s) at the affine maps `theta` (b, 2, 3), in units of half the side."""
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    if x.device.type == "mps":  # it has no border padding; clipped coordinates are the same
        edge = torch.tensor([1 - 1 / x.shape[3], 1 - 1 / x.shape[2]], device=x.device)
        return F.grid_sample(x, grid.clamp(-edge, edge), mode="bilinear", align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def upload(x: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; without making the host wait for a GPU."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)
