"""LoRA: low-rank updates of a block's linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative, survival
from noahnas.space.flops import linear_flops
from noahnas.space.schema import Attribute, Shape, Value

JOINT = "qkv"  # one pair of matrices on the joint layer
LAYERS = ("q", "k", "v", "proj", "fc1", "fc2")
TARGETS = (
    JOINT,
    *("+".join(some) for n in range(1, len(LAYERS) + 1) for some in combinations(LAYERS, n)),
)


class LoRA(PromptModule):
    """W·x + s·B·A·x for each target layer, with one pair of matrices A (r, in) and B (out, r).

    dim is the rank r; subnet r uses the first r rows of A and columns of B. Starts as the
    identity: B begins at zero.

    `targets`: `qkv` is one pair on the joint layer, as NOAH has it. Else a combination such as
    `q+v` or `q+k+v+proj` has a pair for each layer in it, as Hu et al. have it; combinations share
    the pairs of layers that they have in common, `qkv` shares none. `alpha`: s = alpha / r; left
    out, s = 1, as NOAH has it. All values of alpha share the same weights.

    Source: NOAH, arXiv:2206.04673; Hu et al., arXiv:2106.09685.
    """

    name = "lora"
    attributes: ClassVar[Mapping[str, Attribute]] = {
        "targets": Attribute(
            JOINT,
            "layers that are updated: qkv (one pair for all three), or some of "
            "q, k, v, proj, fc1, fc2 in this order, joined by +",
            TARGETS,
        ),
        "alpha": Attribute(
            None, "the update is scaled by alpha / dim; left out, not at all", low=1e-3, high=1e4
        ),
    }

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        declared = [str(value) for value in values["targets"]]
        layers = {layer for value in declared if value != JOINT for layer in value.split("+")}
        if JOINT in declared:
            self.down, self.up = _pair(shape, most, JOINT)
        self.pairs = nn.ModuleDict()
        for layer in LAYERS:
            if layer in layers:
                pair = nn.Module()
                pair.down, pair.up = _pair(shape, most, layer)
                self.pairs[layer] = pair

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """(in + out)·r for each pair: 4·D·r for qkv, 2·D·r for q, k, v or proj."""
        return not_negative(dim) * sum(sum(_ends(shape, x)) for x in _layers(attributes))

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """2·N·(in + out)·r for each pair."""
        return linear_flops(shape.tokens, 1, LoRA.params(shape, dim, **attributes))

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """The layers of the targets; q, k and v are parts of one."""
        layers = _layers(attributes)
        others: tuple[Site, ...] = ("proj", "fc1", "fc2")
        joint: tuple[Site, ...] = ("qkv",) if {JOINT, "q", "k", "v"} & {*layers} else ()
        return (*joint, *(site for site in others if site in layers))

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, in), (B, N, out) -> (B, N, out)."""
        scale = _scale(attributes, dim)
        return out + self._update(site, x, attributes, dim, None if scale == 1 else scale)

    def mix(
        self,
        site: Site,
        x: Tensor,
        out: Tensor,
        weights: Mapping[int, Tensor],
        layout: Layout,
        **attributes: Value,
    ) -> Tensor:
        """The mean output in one forward: each rank scaled by its survival."""
        most = max(weights)
        scales = {dim: _scale(attributes, dim) if dim else 0.0 for dim in weights}
        return out + self._update(site, x, attributes, most, survival(weights, most, scales))

    def _update(
        self,
        site: Site,
        x: Tensor,
        attributes: Mapping[str, Value],
        dim: int,
        scale: Tensor | float | None,
    ) -> Tensor:
        x = F.dropout(x, self.dropout, self.training)  # (B, N, in)
        if site != "qkv":
            return _low_rank(x, self.pairs[site], dim, scale)  # (B, N, in) -> (B, N, out)
        layers = _layers(attributes)
        if JOINT in layers:
            return _low_rank(x, self, dim, scale)  # (B, N, D) -> (B, N, 3D)
        parts = [
            _low_rank(x, self.pairs[part], dim, scale) if part in layers else torch.zeros_like(x)
            for part in ("q", "k", "v")
        ]  # 3 × (B, N, D)
        return torch.cat(parts, dim=-1)  # (B, N, 3D)


def _low_rank(x: Tensor, pair: nn.Module, dim: int, scale: Tensor | float | None) -> Tensor:
    h = F.linear(x, pair.down[:dim])  # type: ignore[index]  # (B, N, in) -> (B, N, r)
    h = h if scale is None else h * scale  # (B, N, r)
    return F.linear(h, pair.up[:, :dim])  # type: ignore[index]  # (B, N, r) -> (B, N, out)


def _layers(attributes: Mapping[str, Value]) -> list[str]:
    return str(LoRA.complete(attributes)["targets"]).split("+")


def _scale(attributes: Mapping[str, Value], dim: int) -> float:
    alpha = attributes["alpha"]
    return 1.0 if alpha is None else float(alpha) / dim


def _ends(shape: Shape, layer: str) -> tuple[int, int]:
    """Inputs and outputs of a layer."""
    width, hidden = shape.width, shape.hidden
    ends = {JOINT: (width, 3 * width), "fc1": (width, shape.fc1), "fc2": (hidden, width)}
    return ends.get(layer, (width, width))


def _pair(shape: Shape, most: int, layer: str) -> tuple[nn.Parameter, nn.Parameter]:
    inputs, outputs = _ends(shape, layer)
    down = nn.init.kaiming_uniform_(torch.empty(most, inputs), a=math.sqrt(5))
    return nn.Parameter(down), nn.Parameter(torch.zeros(outputs, most))  # A (r, in), B (out, r)
