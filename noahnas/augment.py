"""Augmentation of training batches: random flips, and random resized crops."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE = (0.08, 1.0)  # of a crop's area, as a share of the image
RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height, drawn log-uniformly


def flip(x: Tensor) -> Tensor:
    """Mirror each image of a batch (B, 3, H, W) left to right with probability ½."""
    mirrored = torch.rand(len(x)).lt(0.5).to(x.device)  # (B)
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)  # (B, 3, H, W)


def crop(x: Tensor) -> Tensor:
    """A random part of each image of a batch (B, 3, H, W), resized to the whole; bilinear.

    Area and ratio are drawn as in Inception's training (arXiv:1409.4842). What is cropped is the
    image as it was decoded, at the backbone's size: small parts get coarser than a crop of the
    file would be.
    """
    area = torch.empty(len(x)).uniform_(*SCALE)  # (B)
    ratio = torch.empty(len(x)).uniform_(math.log(RATIO[0]), math.log(RATIO[1])).exp()  # (B)
    width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)  # (B)
    theta = torch.zeros(len(x), 2, 3)  # (B, 2, 3), from places in the crop to places in the image
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2] = (torch.rand(len(x)) * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (torch.rand(len(x)) * 2 - 1) * (1 - height)
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)  # (B, 3, H, W)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "flip": flip,
    "crop-flip": lambda x: flip(crop(x)),
}
