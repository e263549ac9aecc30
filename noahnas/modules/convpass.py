"""Convpass: a bottleneck with a convolution over the patches, beside attention and MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative
from noahnas.modules.bottleneck import Bottleneck, lifted, quick_gelu, squeezed
from noahnas.space.flops import linear_flops
from noahnas.space.schema import Attribute, Shape, Value

BOTH, ATTENTION = "both", "attention"


class Convpass(PromptModule):
    """m + s·up(f(conv(f(down(n))))), where m is a branch of the block and n what it reads.

    f(x) = x·sigmoid(1.702x); the 3×3 convolution runs over the grid of patches, and over every
    other token as over an image of one pixel. dim is the number of channels h; subnet h uses the
    first h. Starts as the identity: the up projection begins at zero, the convolution as the
    identity.

    `placement`: `both` branches, or `attention` alone, the paper's Convpass-attn. Both share the
    weights beside attention. `scale` is s.

    Source: Jie & Deng, arXiv:2207.07039.
    """

    name = "convpass"
    attributes: ClassVar[Mapping[str, Attribute]] = {
        "placement": Attribute(BOTH, "beside both branches, or attention alone", (BOTH, ATTENTION)),
        "scale": Attribute(1.0, "what the bypass is multiplied by", low=1e-3, high=1e3),
    }

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = Bypass(shape.width, most)
        if BOTH in values["placement"]:
            self.mlp = Bypass(shape.width, most)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """(2D + 2 + 9h)·h + D for each bypass; 0 when absent."""
        one = (2 * shape.width + 2 + 9 * dim) * dim + shape.width if not_negative(dim) else 0
        return len(Convpass.sites(**attributes)) * one

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """2·N·(2D + 9h)·h for each bypass."""
        one = linear_flops(shape.tokens, 2 * shape.width + 9 * dim, not_negative(dim))
        return len(Convpass.sites(**attributes)) * one

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """The branches of the placement."""
        both = Convpass.complete(attributes)["placement"] == BOTH
        return ("attention", "mlp") if both else ("attention",)

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, D), (B, N, D) -> (B, N, D)."""
        net: Any = self.attention if site == "attention" else self.mlp
        scale = attributes["scale"]
        assert isinstance(scale, int | float)
        h = squeezed(x, net, dim, quick_gelu)  # (B, N, D) -> (B, N, h)
        h = quick_gelu(_convolved(h, net.conv[:dim, :dim], net.conv_bias[:dim], layout))
        h = F.dropout(h, self.dropout, self.training)  # (B, N, h)
        return lifted(out, h, net, scale=scale)  # (B, N, h) -> (B, N, D)


class Bypass(Bottleneck):
    """A bottleneck with a 3×3 convolution over its hidden units, which begins as the identity."""

    def __init__(self, width: int, most: int) -> None:
        super().__init__(width, most)
        self.conv = nn.Parameter(nn.init.dirac_(torch.empty(most, most, 3, 3)))  # (h, h, 3, 3)
        self.conv_bias = nn.Parameter(torch.zeros(most))  # (h)


def _convolved(h: Tensor, weight: Tensor, bias: Tensor, layout: Layout) -> Tensor:
    """(B, N, h) -> (B, N, h)."""
    batch, count, width = h.shape
    first, patches = layout.special, layout.rows * layout.columns
    special, grid, prompts = h.split([first, patches, count - first - patches], dim=1)
    image = grid.transpose(1, 2).reshape(batch, width, layout.rows, layout.columns)
    image = F.conv2d(image, weight, bias, padding=1)  # (B, h, H, W)
    others = torch.cat([special, prompts], dim=1)  # (B, N - HW, h)
    pixels = others.reshape(-1, width, 1, 1)  # (B·(N - HW), h, 1, 1)
    pixels = F.conv2d(pixels, weight, bias, padding=1)  # (B·(N - HW), h, 1, 1)
    others = pixels.reshape(others.shape)  # (B, N - HW, h)
    grid = image.flatten(2).transpose(1, 2)  # (B, HW, h)
    return torch.cat([others[:, :first], grid, others[:, first:]], dim=1)  # (B, N, h)
