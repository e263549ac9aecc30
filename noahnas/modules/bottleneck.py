"""A bottleneck D -> h -> D whose first hidden units are those of a narrower one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """Weights of D -> h -> D with biases; up begins at zero."""

    def __init__(self, width: int, most: int) -> None:
        super().__init__()
        self.down = nn.Parameter(nn.init.xavier_uniform_(torch.empty(most, width)))  # (h, D)
        self.down_bias = nn.Parameter(torch.zeros(most))  # (h)
        self.up = nn.Parameter(torch.zeros(width, most))  # (D, h)
        self.up_bias = nn.Parameter(torch.zeros(width))  # (D)


def quick_gelu(h: Tensor) -> Tensor:
    """x·sigmoid(1.702x)."""
    return h * torch.sigmoid(1.702 * h)


def squeezed(
    x: Tensor,
    net: Any,
    dim: int,
    f: Callable[[Tensor], Tensor],
    *,
    dropout: float = 0.0,
    alive: Tensor | None = None,
) -> Tensor:
    """up(f(down(x))) by the first `dim` hidden units: (B, N, D) -> (B, N, D).

    Args:
        x: tokens.
        net: holds down (h, D), down_bias (h), up (D, h) and up_bias (D).
        dim: hidden units that are used.
        f: the nonlinearity.
        dropout: probability that a hidden unit is dropped.
        alive: (h), the probability that each unit is in use (`survival`); the bias of up is in use
            where the first one is.
    """
    bias: Tensor = net.up_bias  # (D)
    h = f(F.linear(x, net.down[:dim], net.down_bias[:dim]))  # (B, N, D) -> (B, N, h)
    if alive is not None:
        h, bias = h * alive, bias * alive[0]  # (B, N, h), (D)
    h = F.dropout(h, dropout)  # (B, N, h)
    return F.linear(h, net.up[:, :dim], bias)  # (B, N, h) -> (B, N, D)
