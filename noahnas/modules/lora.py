"""LoRA: a low-rank update of the joint query-key-value layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import PromptModule, not_negative, survival
from noahnas.space.schema import Shape, Value


class LoRA(PromptModule):
    """qkv(x) + B·A·x with one pair of matrices on the joint layer and no alpha, as NOAH has it.

    dim is the rank r; subnet r uses the first r rows of A and columns of B. Starts as zero:
    B begins at zero.

    Source: NOAH, arXiv:2206.04673; Hu et al., arXiv:2106.09685.
    """

    name = "lora"
    site = "qkv"

    def __init__(self, width: int, max_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        down = nn.init.kaiming_uniform_(torch.empty(max_dim, width), a=math.sqrt(5))
        self.down = nn.Parameter(down)  # A (r, D)
        self.up = nn.Parameter(torch.zeros(3 * width, max_dim))  # B (3D, r)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """4·D·r: A has r·D, B has 3D·r."""
        return 4 * shape.width * not_negative(dim)

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """(B, N, D) -> (B, N, 3D), to be added to qkv(x)."""
        x = F.dropout(x, self.dropout, self.training)  # (B, N, D)
        h = F.linear(x, self.down[:dim])  # (B, N, D) -> (B, N, r)
        return F.linear(h, self.up[:, :dim])  # (B, N, r) -> (B, N, 3D)

    def mix(self, x: Tensor, weights: Mapping[int, Tensor]) -> Tensor:
        """The mean output in one forward: each rank scaled by its survival."""
        x = F.dropout(x, self.dropout, self.training)  # (B, N, D)
        h = F.linear(x, self.down) * survival(weights, len(self.down))  # (B, N, D) -> (B, N, r)
        return F.linear(h, self.up)  # (B, N, r) -> (B, N, 3D)
