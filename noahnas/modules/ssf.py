"""SSF: every layer's output scaled and shifted, channel by channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noahnas.modules.base import Layout, PromptModule, Site, Values, on_or_off
from noahnas.space.schema import Shape, Value

STD = 0.02  # of scales and shifts at the start
SITES: tuple[Site, ...] = ("norm1", "qkv", "proj", "norm2", "fc1", "fc2")


class SSF(PromptModule):
    """γ ⊙ y + β for the output y of both norms and of all four linear layers of the block.

    dim is 1 (there) or 0. Does not start as the identity, but near it: as in the paper's code γ is
    normal around 1 and β around 0, with a standard deviation of 0.02. What the paper scales outside
    the blocks, the patch embedding and the final norm, is left alone. No dropout acts on it.

    Source: Lian et al., arXiv:2210.08823.
    """

    name = "ssf"
    tokenwise = True
    limit = 1

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        widths = {site: outputs(shape, site) for site in SITES}
        self.scale = nn.ParameterDict(
            {site: torch.empty(width).normal_(1, STD) for site, width in widths.items()}
        )
        self.shift = nn.ParameterDict(
            {site: torch.empty(width).normal_(0, STD) for site, width in widths.items()}
        )

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """2·(7·D + H), twice the layers' outputs; H hidden units count twice if they have gates."""
        return 2 * on_or_off(dim) * sum(outputs(shape, site) for site in SITES)

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
        changed: Tensor = out * self.scale[site] + self.shift[site]  # (B, N, out)
        return changed

    def fold(
        self, site: Site, weight: Tensor, bias: Tensor | None, dim: int, **attributes: Value
    ) -> tuple[Tensor, Tensor | None]:
        """γ ⊙ W, and γ ⊙ b + β."""
        scale, shift = self.scale[site], self.shift[site]  # (out), (out)
        scaled = weight * (scale if weight.ndim == 1 else scale[:, None])  # (out, in)
        return scaled, shift if bias is None else bias * scale + shift  # (out)


def outputs(shape: Shape, site: Site) -> int:
    """Channels of a layer's output."""
    return {"qkv": 3 * shape.width, "fc1": shape.fc1}.get(site, shape.width)
