"""What a prompt module is: elastic weights of one block, and where in the block they act."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from noahnas.space.schema import Attribute, Shape, Value

Site = Literal["qkv", "mlp", "tokens"]


class PromptModule(nn.Module, ABC):
    """Weights of one prompt module in one block, as wide as the space's largest dim.

    Every smaller dim is a prefix slice of the same weights, so all subnets share them.
    `site` says where the block uses what `forward` returns:

    - "qkv": x (B, N, D) is the input of the joint query-key-value layer; the (B, N, 3D) returned
      is added to its output;
    - "mlp": x (B, N, D) is the MLP branch after LayerScale and drop-path; the (B, N, D) returned
      is added to it;
    - "tokens": x (B, N, D) are the tokens that enter the block; the (B, dim, D) returned are
      prompt tokens, appended after them and replacing all prompts still present.

    Subclasses take `(width, max_dim, dropout)`: token width D, the largest dim h, and the dropout
    probability of the module while training.
    """

    name: ClassVar[str]
    site: ClassVar[Site]
    attributes: ClassVar[Mapping[str, Attribute]] = {}  # beside dim

    @staticmethod
    @abstractmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """Trainable parameters that a forward with `dim` uses, on a backbone of `shape`.

        Raises:
            ValueError: if `dim` is negative.
        """

    @abstractmethod
    def forward(self, x: Tensor, dim: int) -> Tensor:
        """What the block uses at `site`, for a `dim` of 1 to the largest one."""

    def mix(self, x: Tensor, weights: Mapping[int, Tensor]) -> Tensor:
        """The mean of `forward` over dims that are drawn with probabilities `weights`.

        Differentiable in the weights; a dim of 0 adds nothing. Subclasses may override it where
        one forward gives the same. Sites that replace rather than add ("tokens") have no mean:
        see `Supernet.mixture`.

        Args:
            x: as for `forward`.
            weights: probability (a scalar tensor) of each dim, 0 included; they sum to 1.
        """
        return torch.stack([w * self(x, dim) for dim, w in weights.items() if dim]).sum(dim=0)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Typed `nn.Module.__call__`."""
        out: Tensor = super().__call__(*args, **kwargs)
        return out


def survival(weights: Mapping[int, Tensor], width: int) -> Tensor:
    """(width,): the probability that unit j = 0, 1, … is in use, that is, that dim > j."""
    units = torch.arange(width, device=next(iter(weights.values())).device)  # (h)
    return torch.stack([w * (units < dim).to(w) for dim, w in weights.items()]).sum(dim=0)  # (h)


def not_negative(dim: int) -> int:
    """`dim` itself.

    Raises:
        ValueError: if it is negative.
    """
    if dim < 0:
        raise ValueError(f"a dim is at least 0 (0 = absent), not {dim}")
    return dim
