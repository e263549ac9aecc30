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
    x: Tensor, net: Any, dim: int, f: Callable[[Tensor], Tensor], dropout: float = 0.0
) -> Tensor:
    """f(down(x)), the first `dim` hidden units: (B, N, D) -> (B, N, h).

    Args:
        x: tokens.
        net: holds down (h, D) and down_bias (h).
        dim: hidden units that are used.
        f: the nonlinearity.
        dropout: probability that a hidden unit is dropped.
    """
    h = f(F.linear(x, net.down[:dim], net.down_bias[:dim]))  # (B, N, D) -> (B, N, h)
    return F.dropout(h, dropout)  # (B, N, h)


def lifted(
    out: Tensor,
    h: Tensor,
    net: Any,
    *,
    scale: float = 1.0,
    gamma: Tensor | None = None,
    alive: Tensor | None = None,
) -> Tensor:
    """Out + scale·γ ⊙ up(h): (B, N, D), (B, N, h) -> (B, N, D).

    The bias is the weight of one more hidden unit, which is 1: so no pass over the tokens is spent
    on it.

    Args:
        out: what the bottleneck is added to.
        h: hidden units, as `squeezed` gives them.
        net: holds up (D, h) and up_bias (D).
        scale: a factor.
        gamma: (D), a factor of each channel.
        alive: (h), the probability that each unit is in use (`survival`); the bias of up is in use
            where the first one is.
    """
    weight = torch.cat([net.up[:, : h.shape[2]], net.up_bias[:, None]], dim=1)  # (D, h + 1)
    if alive is not None:
        weight = weight * torch.cat([alive, alive[:1]])  # (D, h + 1)
    if gamma is not None:
        weight = gamma[:, None] * weight  # (D, h + 1)
    return added(out, F.pad(h, (0, 1), value=1.0), weight, scale)  # (B, N, D)


def added(out: Tensor, h: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:
    """Out + scale·h·weightᵀ: (B, N, D), (B, N, h), (D, h) -> (B, N, D).

    In one operation, but under autocast: that would round `out`, too. Where no gradient is
    recorded, `out` is overwritten.
    """
    if torch.is_autocast_enabled(out.device.type):
        return torch.add(out, F.linear(h, weight), alpha=scale)  # (B, N, D)
    flat, h = out.flatten(0, 1), h.flatten(0, 1)  # (B·N, D), (B·N, h)
    if torch.is_grad_enabled():
        return torch.addmm(flat, h, weight.t(), alpha=scale).view(out.shape)  # (B, N, D)
    return flat.addmm_(h, weight.t(), alpha=scale).view(out.shape)  # (B, N, D)
