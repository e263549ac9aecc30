"""BitFit: the biases of the block, and nothing else, are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noahnas.modules.base import Layout, PromptModule, Site, Values, on_or_off
from noahnas.modules.ssf import SITES, outputs
from noahnas.space.schema import Shape, Value


class BitFit(PromptModule):
    """y + Δb for the output y of both norms and of all four linear layers of the block.

    dim is 1 (there) or 0. Starts as the identity: Δb begins at zero, that is, the biases begin as
    the backbone's, and weight decay draws them there. A layer without a bias gets one. No dropout
    acts on it.

    Source: Ben Zaken et al., arXiv:2106.10199.
    """

    name = "bitfit"
    tokenwise = True
    limit = 1

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.ParameterDict({site: torch.zeros(outputs(shape, site)) for site in SITES})

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """7·D + H, the layers' outputs; H hidden units count twice if they have gates."""
        return on_or_off(dim) * sum(outputs(shape, site) for site in SITES)

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """None that are counted: no matrix product."""
        return 0 * on_or_off(dim)

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """Both norms and all linear layers."""
        return SITES

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, out) -> (B, N, out)."""
        changed: Tensor = out + self.bias[site]  # (B, N, out)
        return changed

    def fold(
        self, site: Site, weight: Tensor, bias: Tensor | None, dim: int, **attributes: Value
    ) -> tuple[Tensor, Tensor | None]:
        """W, and b + Δb."""
        return weight, self.bias[site] if bias is None else bias + self.bias[site]  # (out)
