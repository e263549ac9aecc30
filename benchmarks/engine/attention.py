"""Attention of one block, forward and backward: by hand, and by PyTorch's own kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from models import Work, model_of
from ratios import pairs, ratio, show

from noahnas.backbone import short
from noahnas.backbone.attention import attend
from noahnas.device import autocast

CPU = torch.device("cpu")
CASES = [  # backbone, images, tokens, prompts, precision
    ("vit-nano", 120, 17, 10, "fp32"),
    ("vit-nano", 64, 17, 10, "bf16"),
    ("vit_small_patch16_224", 8, 197, 10, "bf16"),
]
NEVER = {False: 0, True: 0}


def attention(count: int) -> dict[str, Any]:
    """What attention by hand takes, over what it takes by the kernels that PyTorch chooses."""
    found = {}
    for name, images, tokens, prompts, precision in CASES:
        attn: Any = model_of(name).blocks[0].attn.requires_grad_(False).train()
        width = attn.qkv.in_features
        x = torch.randn(images, tokens, width, requires_grad=True)
        rows = torch.randn(1, prompts, width, requires_grad=True)
        ours = _step(lambda: attend(attn, x, tokens, [rows]), precision)  # noqa: B023
        told = f"{name}, {images} × ({tokens} + {prompts}), {precision}"
        found[told] = ratio(pairs(ours, _unaided(ours), count))
        show(f"attention {told}", found[told])
    return found


def _step(forward: Callable[[], torch.Tensor], precision: str) -> Work:
    def step() -> None:
        with autocast(CPU, precision):
            out = forward()  # (B, N, D)
        out.sum().backward()

    return step


def _unaided(step: Work) -> Work:
    """The same without what is done by hand."""

    def unaided() -> None:
        usual = short.LONGEST
        short.LONGEST = NEVER
        try:
            step()
        finally:
            short.LONGEST = usual

    return unaided
