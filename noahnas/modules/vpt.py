"""VPT-deep: learned prompt tokens in front of a block's attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative
from noahnas.space.flops import reading_flops
from noahnas.space.schema import Attribute, Shape, Value

XAVIER, NORMAL = "xavier", "normal"


class VPT(PromptModule):
    """p learned tokens appended to the block's input; they replace all prompts still present.

    dim is the number of tokens p; subnet p uses the first p. A block without VPT lets earlier
    prompts flow on. Does not start as the identity: fresh prompts take attention.

    `init` says how tokens start: `xavier`, uniform within the paper's bound at ViT-B/16, or
    `normal`, with a standard deviation of 0.02, as learned text prompts start (CoOp,
    arXiv:2109.01134). Tokens that started differently are different weights: a supernet that
    offers both holds both.

    Source: NOAH, arXiv:2206.04673; Jia et al., arXiv:2203.12119.
    """

    name = "vpt"
    tokenwise = True
    attributes: ClassVar[Mapping[str, Attribute]] = {
        "init": Attribute(
            XAVIER, "how tokens start: xavier (uniform) or normal (0.02)", (XAVIER, NORMAL)
        )
    }

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        bound = math.sqrt(3.0 / shape.width)  # the paper's Xavier bound at ViT-B/16
        if XAVIER in values["init"]:
            tokens = torch.empty(most, shape.width).uniform_(-bound, bound)
            self.tokens = nn.Parameter(tokens)  # (p, D)
        if NORMAL in values["init"]:
            tokens = torch.empty(most, shape.width).normal_(0, 0.02)
            self.normal_tokens = nn.Parameter(tokens)  # (p, D)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """p·D."""
        return shape.width * not_negative(dim)

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """4·N·p·D, what reading p more keys and values takes.

        Those are made once for all images. That counts prompts which the next block replaces; where
        they flow on, they are tokens like all others from this block on, which is left out.
        """
        return reading_flops(shape, not_negative(dim))

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """The tokens that enter the block."""
        return ("tokens",)

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, D) -> (b, p, D), the prompts of this block; b is B, or 1 for all images."""
        tokens = self.tokens if attributes["init"] == XAVIER else self.normal_tokens  # (p, D)
        prompts = tokens[:dim].unsqueeze(0)  # (1, p, D)
        if self.training and self.dropout:  # of each image by itself
            prompts = prompts.expand(len(x), -1, -1)  # (B, p, D)
        return F.dropout(prompts, self.dropout, self.training)  # (b, p, D)
