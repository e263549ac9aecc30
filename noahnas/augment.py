"""Augmentation of training batches: flips, crops, erasing, Mixup and CutMix.

Random numbers come from PyTorch's generator, which `train` seeds anew in each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas.recipe import Stage

SCALE = (0.08, 1.0)  # of a crop's area, as a share of the image
RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height, drawn log-uniformly
ERASED = (0.02, 1 / 3)  # of an erased box's area, as a share of the image
ERASED_RATIO = (0.3, 1 / 0.3)


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
    width, height = _sides(len(x), SCALE, RATIO)  # (B), (B)
    theta = torch.zeros(len(x), 2, 3)  # (B, 2, 3), from places in the crop to places in the image
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2] = (torch.rand(len(x)) * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (torch.rand(len(x)) * 2 - 1) * (1 - height)
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)  # (B, 3, H, W)


def erase(x: Tensor, probability: float) -> Tensor:
    """Noise in a random box of each image of a batch (B, 3, H, W) with some probability.

    Source: Zhong et al., arXiv:1708.04896.
    """
    width, height = _sides(len(x), ERASED, ERASED_RATIO)  # (B), (B)
    left = torch.rand(len(x)) * (1 - width)  # (B)
    top = torch.rand(len(x)) * (1 - height)  # (B)
    box = _box(x, left, top, left + width, top + height)  # (B, 1, H, W)
    hit = torch.rand(len(x)).lt(probability).to(x.device)  # (B)
    return torch.where(box & hit[:, None, None, None], torch.randn(x.shape).to(x), x)


def mix(x: Tensor, targets: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """A batch mixed with itself in reverse order, images and targets in the same proportion.

    CutMix, or Mixup, or each with probability ½ where both are wanted. The share of the first image
    is drawn from Beta(a, a), once for the batch.

    Args:
        x: (B, 3, H, W).
        targets: (B, classes), probabilities.
        mixup: the a of Mixup; 0 = none.
        cutmix: the a of CutMix; 0 = none.

    Source: Mixup, arXiv:1710.09412; CutMix, arXiv:1905.04899.
    """
    cuts = bool(cutmix) and (not mixup or bool(torch.rand(()) < 0.5))
    a = cutmix if cuts else mixup
    share = float(torch.distributions.Beta(a, a).sample())
    if cuts:
        side = math.sqrt(1 - share)
        centre = torch.rand(2, 1)  # across, down
        low, high = (centre - side / 2).clamp_min(0), (centre + side / 2).clamp_max(1)
        box = _box(x[:1], low[0], low[1], high[0], high[1])  # (1, 1, H, W)
        share = 1 - box.float().mean().item()
        x = torch.where(box, x.flip(0), x)  # (B, 3, H, W)
    else:
        x = share * x + (1 - share) * x.flip(0)  # (B, 3, H, W)
    return x, share * targets + (1 - share) * targets.flip(0)  # (B, classes)


def _sides(
    count: int, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Widths and heights (B) of boxes, as shares of the image's, at most 1."""
    size = torch.empty(count).uniform_(*area)  # (B)
    shape = torch.empty(count).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()  # (B)
    return (size * shape).sqrt().clamp_max(1), (size / shape).sqrt().clamp_max(1)


def _box(x: Tensor, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """(B, 1, H, W), on x's device: which pixels lie in boxes given as shares of the image."""
    down = ((torch.arange(x.shape[2]) + 0.5) / x.shape[2])[None, :, None]  # (1, H, 1)
    across = ((torch.arange(x.shape[3]) + 0.5) / x.shape[3])[None, None, :]  # (1, 1, W)
    left, top, right, bottom = (edge[:, None, None] for edge in (left, top, right, bottom))
    inside = (across >= left) & (across < right) & (down >= top) & (down < bottom)  # (B, H, W)
    return inside[:, None].to(x.device)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "flip": flip,
    "crop-flip": lambda x: flip(crop(x)),
}


def augmented(x: Tensor, labels: Tensor, stage: Stage, classes: int) -> tuple[Tensor, Tensor]:
    """What a stage trains on in place of a batch.

    Args:
        x: (B, 3, H, W), normalised.
        labels: (B).
        stage: says which augmentations.
        classes: how many there are.

    Returns:
        Images (B, 3, H, W), and labels (B) or, where images are mixed, probabilities (B, classes).
    """
    x = AUGMENTATIONS[stage.augment](x)
    if stage.erase:
        x = erase(x, stage.erase)
    if stage.mixup or stage.cutmix:
        return mix(x, F.one_hot(labels, classes).to(x.dtype), stage.mixup, stage.cutmix)
    return x, labels
