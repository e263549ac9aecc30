"""AdaptFormer: a scaled bottleneck in parallel to the MLP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative, survival
from noahnas.modules.bottleneck import lifted, squeezed
from noahnas.space.flops import linear_flops
from noahnas.space.schema import Attribute, Shape, Value


class AdaptFormer(PromptModule):
    """MLP(n) + s·(up(relu(down(n)))), where n is what the MLP reads, the normalised tokens.

    dim is the hidden width h; subnet h uses the first h hidden units. Starts as the identity: the
    up projection begins at zero. `scale` is s, 0.1 in the paper. The adapter's placement
    `mlp-parallel` differs in its nonlinearity, its scale and the start of its weights.

    Source: Chen et al., arXiv:2205.13535, equations 3 and 4; its code reads the tokens before the
    norm.
    """

    name = "adaptformer"
    tokenwise = True
    attributes: ClassVar[Mapping[str, Attribute]] = {
        "scale": Attribute(0.1, "what the branch's output is multiplied by", low=1e-3, high=1e3)
    }

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        down = nn.init.kaiming_uniform_(torch.empty(most, shape.width), a=math.sqrt(5))
        self.down = nn.Parameter(down)  # (h, D)
        self.down_bias = nn.Parameter(torch.zeros(most))  # (h)
        self.up = nn.Parameter(torch.zeros(shape.width, most))  # (D, h)
        self.up_bias = nn.Parameter(torch.zeros(shape.width))  # (D)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """(2D + 1)·h + D, the last D being the bias of the up projection; 0 when absent."""
        return (2 * shape.width + 1) * dim + shape.width if not_negative(dim) else 0

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """4·N·D·h: down and up."""
        return 2 * linear_flops(shape.tokens, shape.width, not_negative(dim))

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """The MLP branch."""
        return ("mlp",)

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, D), (B, N, D) -> (B, N, D)."""
        return self._run(x, out, attributes, dim, None)

    def mix(
        self,
        site: Site,
        x: Tensor,
        out: Tensor,
        weights: Mapping[int, Tensor],
        layout: Layout,
        **attributes: Value,
    ) -> Tensor:
        """The mean output in one forward: hidden units and the up bias scaled by their survival."""
        most = max(weights)
        return self._run(x, out, attributes, most, survival(weights, most))

    def _run(
        self,
        x: Tensor,
        out: Tensor,
        attributes: Mapping[str, Value],
        dim: int,
        alive: Tensor | None,
    ) -> Tensor:
        scale = attributes["scale"]
        assert isinstance(scale, int | float)
        rate = self.dropout if self.training else 0.0
        h = squeezed(x, self, dim, F.relu, rate)  # (B, N, D) -> (B, N, h)
        return lifted(out, h, self, scale=scale, alive=alive)  # (B, N, h) -> (B, N, D)
