"""The models that are measured, and the architectures that are measured on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch

from noahnas import Arch, Space
from noahnas.backbone import load_backbone

# Images of a batch: of a training step, and of the split that is evaluated.
MODELS = {"vit-nano": 120, "vit_small_patch16_224": 4, "vit_base_patch16_224": 4}
SPLITS = {"vit-nano": 240, "vit_small_patch16_224": 16, "vit_base_patch16_224": 16}
CLASSES = 10
Work = Callable[[], Any]


def model_of(name: str) -> Any:
    """The backbone, and its input's size."""
    if name == "vit-nano":
        return load_backbone(name).model
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0)


def size_of(model: Any) -> int:
    """Height and width of its images, in pixels."""
    return int(model.patch_embed.img_size[0])


def archs_of(space: Space) -> dict[str, Arch]:
    """The largest arch, and the one of median cost of 201 draws of the paper prior."""
    rng = np.random.default_rng(0)
    drawn = sorted((space.draw(rng) for _ in range(201)), key=space.flops)
    return {"largest": space.largest, "median": drawn[100]}
