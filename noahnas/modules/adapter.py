"""Adapter: a bottleneck MLP on the output of the block's MLP branch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import PromptModule, not_negative, survival
from noahnas.space.schema import Shape, Value


class Adapter(PromptModule):
    """m + up(q(down(m))), where m is the MLP branch and q(x) = x·sigmoid(1.702x).

    dim is the hidden width h; subnet h uses the first h hidden units. Starts as the identity:
    the up projection begins at zero.

    Source: NOAH, arXiv:2206.04673; Houlsby et al., arXiv:1902.00751.
    """

    name = "adapter"
    site = "mlp"

    def __init__(self, width: int, max_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.down = nn.Parameter(nn.init.xavier_uniform_(torch.empty(max_dim, width)))  # (h, D)
        self.down_bias = nn.Parameter(torch.zeros(max_dim))  # (h)
        self.up = nn.Parameter(torch.zeros(width, max_dim))  # (D, h)
        self.up_bias = nn.Parameter(torch.zeros(width))  # (D)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """(2D + 1)·h + D, the last D being the bias of the up projection; 0 when absent."""
        return (2 * shape.width + 1) * dim + shape.width if not_negative(dim) else 0

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """(B, N, D) -> (B, N, D), to be added to x."""
        h = F.linear(x, self.down[:dim], self.down_bias[:dim])  # (B, N, D) -> (B, N, h)
        h = h * torch.sigmoid(1.702 * h)  # (B, N, h)
        h = F.dropout(h, self.dropout, self.training)  # (B, N, h)
        return F.linear(h, self.up[:, :dim], self.up_bias)  # (B, N, h) -> (B, N, D)

    def mix(self, x: Tensor, weights: Mapping[int, Tensor]) -> Tensor:
        """The mean output in one forward: hidden units and the up bias scaled by their survival."""
        alive = survival(weights, len(self.down))  # (h)
        h = F.linear(x, self.down, self.down_bias)  # (B, N, D) -> (B, N, h)
        h = h * torch.sigmoid(1.702 * h) * alive  # (B, N, h)
        h = F.dropout(h, self.dropout, self.training)  # (B, N, h)
        return F.linear(h, self.up, self.up_bias * alive[0])  # (B, N, h) -> (B, N, D)
