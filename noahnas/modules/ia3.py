"""(IA)³: keys, values and the MLP's hidden units rescaled by learned vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noahnas.modules.base import Layout, PromptModule, Site, Values, on_or_off
from noahnas.space.schema import Shape, Value


class IA3(PromptModule):
    """l_k ⊙ K, l_v ⊙ V, and l_ff ⊙ h where h is what the MLP's second layer reads.

    dim is 1 (there) or 0. Starts as the identity: all three vectors begin at one. No dropout acts
    on it.

    Source: Liu et al., arXiv:2205.05638.
    """

    name = "ia3"
    tokenwise = True
    limit = 1

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.ones(shape.width))  # (D)
        self.value = nn.Parameter(torch.ones(shape.width))  # (D)
        self.hidden = nn.Parameter(torch.ones(shape.hidden))  # (H)

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """2·D + H."""
        return on_or_off(dim) * (2 * shape.width + shape.hidden)

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """None that are counted: no matrix product."""
        return 0 * on_or_off(dim)

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """The joint query-key-value layer, and the MLP's hidden units."""
        return ("qkv", "hidden")

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, 3D) -> (B, N, 3D), or (B, N, H) -> (B, N, H)."""
        if site == "hidden":
            return out * self.hidden  # (B, N, H)
        query, key, value = out.chunk(3, dim=-1)  # 3 × (B, N, D)
        return torch.cat([query, key * self.key, value * self.value], dim=-1)  # (B, N, 3D)

    def fold(
        self, site: Site, weight: Tensor, bias: Tensor | None, dim: int, **attributes: Value
    ) -> tuple[Tensor, Tensor | None]:
        """Rows of W and b scaled, or the columns that hidden units meet."""
        if site == "hidden":
            return weight * self.hidden, bias  # (D, H)
        scale = torch.cat([torch.ones_like(self.key), self.key, self.value])  # (3D)
        return weight * scale[:, None], None if bias is None else bias * scale  # (3D, D), (3D)
