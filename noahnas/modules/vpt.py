"""VPT-deep: learned prompt tokens in front of a block's attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import PromptModule, not_negative
from noahnas.space.schema import Shape, Value


class VPT(PromptModule):
    """p learned tokens appended to the block's input; they replace all prompts still present.

    dim is the number of tokens p; subnet p uses the first p. A block without VPT lets earlier
    prompts flow on.

    Source: NOAH, arXiv:2206.04673; Jia et al., arXiv:2203.12119.
    """

    name = "vpt"
    site = "tokens"

    def __init__(self, width: int, max_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        bound = math.sqrt(3.0 / width)  # the paper's Xavier bound at ViT-B/16
        tokens = torch.empty(max_dim, width).uniform_(-bound, bound)
        self.tokens = nn.Parameter(tokens)  # (p, D)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """p·D."""
        return shape.width * not_negative(dim)

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """(B, N, D) -> (B, p, D), the prompts of this block."""
        tokens = self.tokens[:dim].expand(x.shape[0], -1, -1)  # (p, D) -> (B, p, D)
        return F.dropout(tokens, self.dropout, self.training)  # (B, p, D)
