"""LoRA: low-rank updates of a block's linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative, survival
from noahnas.modules.bottleneck import added
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
    tokenwise = True
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
        down, up = self._pair(site, attributes, dim)  # (R, in), (out, R)
        h = F.linear(F.dropout(x, self.dropout, self.training), down)  # (B, N, in) -> (B, N, R)
        return added(out, h, up, _scale(attributes, dim))  # (B, N, R) -> (B, N, out)

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
        down, up = self._pair(site, attributes, most)  # (R, in), (out, R)
        h = F.linear(F.dropout(x, self.dropout, self.training), down)  # (B, N, in) -> (B, N, R)
        alive = survival(weights, most, scales)  # (r)
        return added(out, h * alive.repeat(len(down) // most), up)  # (B, N, R) -> (B, N, out)

    def fold(
        self, site: Site, weight: Tensor, bias: Tensor | None, dim: int, **attributes: Value
    ) -> tuple[Tensor, Tensor | None]:
        """W + s·B·A."""
        down, up = self._pair(site, attributes, dim)  # (R, in), (out, R)
        return torch.addmm(weight, up, down, alpha=_scale(attributes, dim)), bias  # (out, in)

    def _pair(self, site: Site, attributes: Mapping[str, Value], dim: int) -> tuple[Tensor, Tensor]:
        """A (R, in) and B (out, R) at a site; R is a rank for each target there."""
        layers: list[Any] = [self]
        if site != "qkv":
            layers = [self.pairs[site]]
        elif JOINT not in _layers(attributes):
            layers = [self.pairs[part] for part in "qkv" if part in _layers(attributes)]
        downs, ups = [x.down[:dim] for x in layers], [x.up[:, :dim] for x in layers]
        if len(layers) == 1 and (site != "qkv" or layers[0] is self):
            return downs[0], ups[0]
        # q, k and v are parts of one layer: each updates its own third.
        parts = iter(ups)
        found = [part in _layers(attributes) for part in "qkv"]
        width, rows = len(ups[0]), len(ups) * dim
        thirds, first = [], 0
        for there in found:
            up = next(parts) if there else downs[0].new_zeros(width, 0)  # (D, r) or (D, 0)
            thirds.append(F.pad(up, (first, rows - first - up.shape[1])))  # (D, R)
            first += up.shape[1]
        return torch.cat(downs), torch.cat(thirds)  # (R, D), (3D, R)


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
