"""Prefix tuning: learned keys and values that attention reads beside those of the tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative
from noahnas.space.flops import reading_flops
from noahnas.space.schema import Shape, Value


class Prefix(PromptModule):
    """softmax(Q·[K; P_k]ᵀ/√d)·[V; P_v]: p learned keys and values in each block that has them.

    dim is the number p of keys and values; subnet p uses the first p. They ask for nothing, so no
    token is added; where attention normalises keys, it normalises these, too. They are learned
    directly, without the paper's network that makes them in training alone. Does not start as the
    identity: fresh keys take attention.

    Source: Li & Liang, arXiv:2101.00190.
    """

    name = "prefix"
    tokenwise = True

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.keys = nn.Parameter(torch.empty(most, shape.width).normal_(0, 0.02))  # (p, D)
        self.values = nn.Parameter(torch.empty(most, shape.width).normal_(0, 0.02))  # (p, D)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """2·D·p."""
        return 2 * shape.width * not_negative(dim)

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """4·N·p·D, what reading p more keys and values takes."""
        return reading_flops(shape, not_negative(dim))

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """What attention reads."""
        return ("prefix",)

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, D) -> (b, p, 2D), keys and values; b is B, or 1 for all images."""
        rows = torch.cat([self.keys[:dim], self.values[:dim]], dim=-1)  # (p, 2D)
        rows = rows.unsqueeze(0)  # (1, p, 2D)
        if self.training and self.dropout:  # of each image by itself
            rows = rows.expand(len(x), -1, -1)  # (B, p, 2D)
        return F.dropout(rows, self.dropout, self.training)  # (b, p, 2D)
