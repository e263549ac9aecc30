"""What a prompt module is: elastic weights of one block, and where in the block they act."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from noahnas.space.schema import Attribute, Shape, Value

Site = Literal[
    "tokens", "norm1", "qkv", "prefix", "proj", "attention",
    "norm2", "fc1", "hidden", "fc2", "mlp", "block",
]  # fmt: skip
Values = Mapping[str, tuple[Value, ...]]  # per attribute: every value it may take


@dataclass(frozen=True)
class Layout:
    """Which tokens are which: class and register tokens first, then patches, then prompts."""

    special: int  # class, distillation and register tokens
    rows: int  # of patches
    columns: int


class PromptModule(nn.Module, ABC):
    """Weights of one prompt module in one block, as wide as the space's largest dim.

    Every smaller dim is a prefix slice of the same weights, so all subnets share them. `sites`
    says where the module acts, in the order in which a block computes:

    | site | x, the input | out, the output |
    |---|---|---|
    | `tokens` | tokens that enter the block (B, N, D) | returned: prompts (b, p, D) |
    | `norm1` | of the first norm (B, N, D) | (B, N, D) |
    | `qkv` | of the joint query-key-value layer (B, N, D) | (B, N, 3D) |
    | `prefix` | what attention reads (B, N, D) | returned: keys and values (b, p, 2D) |
    | `proj` | of attention's output layer (B, N, D) | (B, N, D) |
    | `attention` | what attention reads | its branch, after LayerScale and drop-path |
    | `norm2` | of the second norm (B, N, D) | (B, N, D) |
    | `fc1` | of the MLP's first layer (B, N, D) | (B, N, H), or (B, N, 2H) with gates |
    | `hidden` | what the MLP's second layer reads (B, N, H) | the same |
    | `fc2` | of the MLP's second layer (B, N, H) | (B, N, D) |
    | `mlp` | what the MLP reads | its branch, after LayerScale and drop-path |
    | `block` | tokens that enter the block | tokens that leave it |

    `forward` returns what takes the place of `out`. Two sites add tokens instead: what is returned
    at `tokens` is appended, replacing all prompts still present; what is returned at `prefix` is
    keys and values that attention reads in this block alone. Both have b = B, or b = 1 where they
    are the same for all images. While no gradients are recorded
    `forward` may overwrite `out`, which is read by nobody else. Where several modules act at one
    site, they act one after the other, in alphabetical order.

    Two things may be told for speed. `tokenwise` says that what a module does to one token depends
    on that token alone; then it is given only tokens that somebody reads afterwards: no prompts
    that the next block replaces, and in the last block what the classifier reads.
    `fold` puts a linear change into the layer's weights, which is used where no gradient is needed.

    Subclasses take `(shape, most, values, dropout)`: the backbone's shape; the largest dim; for
    each attribute every value it may take in this block, weights for all of which are needed; and
    the dropout probability of the module while training.
    """

    name: ClassVar[str]
    attributes: ClassVar[Mapping[str, Attribute]] = {}  # beside dim
    limit: ClassVar[int | None] = None  # the greatest dim; 1 where a module is there or not
    tokenwise: ClassVar[bool] = False  # at each site but `tokens` and `prefix`: see below

    @staticmethod
    @abstractmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """Trainable parameters that a forward with `dim` uses, on a backbone of `shape`.

        Attributes left out have their defaults.

        Raises:
            ValueError: if `dim` is negative, or beyond `limit`.
        """

    @staticmethod
    @abstractmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """Floating-point operations per image that the module adds to one block's forward.

        Two per multiply-accumulate of matrix products and attention, other modules apart.
        Attributes left out have their defaults.
        """

    @staticmethod
    @abstractmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """Where the module acts under these attributes."""

    @abstractmethod
    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """What takes the place of `out` at `site`, for a dim of 1 to the largest one.

        All attributes are given.
        """

    def mix(
        self,
        site: Site,
        x: Tensor,
        out: Tensor,
        weights: Mapping[int, Tensor],
        layout: Layout,
        **attributes: Value,
    ) -> Tensor:
        """The mean of `forward` over dims that are drawn with probabilities `weights`.

        Differentiable in the weights; at a dim of 0 `out` stays. Subclasses may override it where
        one forward gives the same. The sites `tokens` and `prefix` have no mean: see
        `Supernet.mixture`.

        Args:
            site: as for `forward`.
            x: as for `forward`.
            out: as for `forward`.
            weights: probability (a scalar tensor) of each dim, 0 included; they sum to 1.
            layout: as for `forward`.
            attributes: as for `forward`.
        """
        changed = []
        for dim, w in weights.items():
            own = out if torch.is_grad_enabled() else out.clone()  # it may be overwritten
            changed.append(w * (self(site, x, own, dim, layout, **attributes) if dim else out))
        return torch.stack(changed).sum(dim=0)

    def fold(
        self, site: Site, weight: Tensor, bias: Tensor | None, dim: int, **attributes: Value
    ) -> tuple[Tensor, Tensor | None] | None:
        """New weights of the layer at `site` that do what `forward` does without dropout.

        None where there are none. At `hidden` the layer is the one that reads the hidden units. The
        given tensors stay as they are.

        Args:
            site: `norm1`, `qkv`, `proj`, `norm2`, `fc1`, `hidden` or `fc2`.
            weight: (out, in), of a norm (D).
            bias: (out), of a norm (D); None if the layer has none.
            dim: as for `forward`.
            attributes: as for `forward`.
        """
        return None

    @classmethod
    def complete(cls, attributes: Mapping[str, Value]) -> dict[str, Value]:
        """The attributes, those left out at their defaults."""
        return {key: declared.default for key, declared in cls.attributes.items()} | {**attributes}

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Typed `nn.Module.__call__`."""
        out: Tensor = super().__call__(*args, **kwargs)
        return out


def survival(
    weights: Mapping[int, Tensor], width: int, scales: Mapping[int, float] | None = None
) -> Tensor:
    """(width,): the probability that unit j = 0, 1, … is in use, that is, that dim > j.

    With `scales`, what a dim multiplies its units by, it is the mean of that factor.
    """
    units = torch.arange(width, device=next(iter(weights.values())).device)  # (h)
    alive = [
        w * (units < dim).to(w) * (scales[dim] if scales else 1.0) for dim, w in weights.items()
    ]
    return torch.stack(alive).sum(dim=0)  # (h)


def not_negative(dim: int) -> int:
    """`dim` itself.

    Raises:
        ValueError: if it is negative.
    """
    if dim < 0:
        raise ValueError(f"a dim is at least 0 (0 = absent), not {dim}")
    return dim


def on_or_off(dim: int) -> int:
    """`dim` itself, of a module that is there or not.

    Raises:
        ValueError: if it is neither 0 nor 1.
    """
    if not_negative(dim) > 1:
        raise ValueError(f"the dim is 1 (there) or 0 (absent), not {dim}")
    return dim
