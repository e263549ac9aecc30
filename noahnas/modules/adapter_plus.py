"""Adapter+: a bottleneck on the tokens that leave the block, scaled channel by channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.layers.drop import drop_path
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative, survival
from noahnas.modules.bottleneck import lifted, squeezed
from noahnas.space.flops import linear_flops
from noahnas.space.schema import Shape, Value

STD = 0.01  # of both projections at the start, cut at twice that


class AdapterPlus(PromptModule):
    """x + s ⊙ (up(gelu(down(x)))), where x leaves the block and s is learned, one per channel.

    dim is the hidden width h; subnet h uses the first h hidden units. Does not start as the
    identity, but near it: both projections begin as the paper has it, normal with a standard
    deviation of 0.01 and cut at 0.02. The module's dropout drops its whole output for some images,
    as the paper's stochastic depth does.

    Source: Steitz & Roth, arXiv:2406.06820.
    """

    name = "adapter_plus"
    tokenwise = True

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.down = nn.Parameter(_small(most, shape.width))  # (h, D)
        self.down_bias = nn.Parameter(torch.zeros(most))  # (h)
        self.up = nn.Parameter(_small(shape.width, most))  # (D, h)
        self.up_bias = nn.Parameter(torch.zeros(shape.width))  # (D)
        self.scale = nn.Parameter(torch.ones(shape.width))  # (D)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """(2D + 1)·h + 2·D, the last being the up projection's bias and s; 0 when absent."""
        return (2 * shape.width + 1) * dim + 2 * shape.width if not_negative(dim) else 0

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """4·N·D·h: down and up."""
        return 2 * linear_flops(shape.tokens, shape.width, not_negative(dim))

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """The tokens that leave the block."""
        return ("block",)

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self._run(out, dim, None)

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
        return self._run(out, most, survival(weights, most))

    def _run(self, x: Tensor, dim: int, alive: Tensor | None) -> Tensor:
        h = squeezed(x, self, dim, F.gelu)  # (B, N, D) -> (B, N, h)
        if not self.training or not self.dropout:
            return lifted(x, h, self, gamma=self.scale, alive=alive)  # (B, N, D)
        delta = lifted(torch.zeros_like(x), h, self, gamma=self.scale, alive=alive)  # (B, N, D)
        kept: Tensor = drop_path(delta, self.dropout, training=True)  # (B, N, D)
        return x + kept  # (B, N, D)


def _small(rows: int, columns: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(rows, columns), std=STD, a=-2 * STD, b=2 * STD)
