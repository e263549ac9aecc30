"""Adapter: a bottleneck MLP on a branch of the block, after it or beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, Values, not_negative, survival
from noahnas.modules.bottleneck import Bottleneck, lifted, quick_gelu, squeezed
from noahnas.space.flops import linear_flops
from noahnas.space.schema import Attribute, Shape, Value

MLP = "mlp"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class Adapter(PromptModule):
    """m + s·(up(f(down(x)))), where m is a branch of the block, and x = m or what the branch reads.

    dim is the hidden width h; subnet h uses the first h hidden units. Starts as the identity:
    the up projection begins at zero.

    `placement`: `mlp` reads the MLP branch's output, after LayerScale and drop-path, as NOAH has
    it; `mlp-parallel` reads the MLP's input, as AdaptFormer does (arXiv:2205.13535); `attention`
    and `attention-parallel` do the same at the attention branch. Each placement has weights of its
    own, for it reads other features. `scale` is s, `activation` is f, NOAH's being
    x·sigmoid(1.702x); their values share weights.

    Source: NOAH, arXiv:2206.04673; Houlsby et al., arXiv:1902.00751.
    """

    name = "adapter"
    tokenwise = True
    attributes: ClassVar[Mapping[str, Attribute]] = {
        "placement": Attribute(
            MLP,
            "after the MLP or the attention branch, or in parallel to it",
            (MLP, "mlp-parallel", "attention", "attention-parallel"),
        ),
        "scale": Attribute(1.0, "what the adapter's output is multiplied by", low=1e-3, high=1e3),
        "activation": Attribute("quick_gelu", "its nonlinearity", tuple(ACTIVATIONS)),
    }

    def __init__(self, shape: Shape, most: int, values: Values, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        placements = [str(value) for value in values["placement"]]
        if MLP in placements:  # the paper's adapter keeps its weights at the top
            for name, weight in Bottleneck(shape.width, most).named_parameters():
                self.register_parameter(name, weight)
        self.placed = nn.ModuleDict(
            {place: Bottleneck(shape.width, most) for place in placements if place != MLP}
        )

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Value) -> int:
        """(2D + 1)·h + D, the last D being the bias of the up projection; 0 when absent."""
        return (2 * shape.width + 1) * dim + shape.width if not_negative(dim) else 0

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Value) -> int:
        """4·N·D·h: down and up."""
        return 2 * linear_flops(shape.tokens, shape.width, not_negative(dim))

    @staticmethod
    def sites(**attributes: Value) -> tuple[Site, ...]:
        """The branch of the placement."""
        placement = str(Adapter.complete(attributes)["placement"])
        return ("mlp",) if placement.startswith(MLP) else ("attention",)

    def forward(
        self, site: Site, x: Tensor, out: Tensor, dim: int, layout: Layout, **attributes: Value
    ) -> Tensor:
        """(B, N, D), (B, N, D) -> (B, N, D)."""
        return self._run(x, out, attributes, dim, None)

    def mix(
        self,
        site: Site,
        x: Tensor,
        out: Tensor,
        weights: Mapping[int, Tensor],
        layout: Layout,
        **attributes: Value,
    ) -> Tensor:
        """The mean output in one forward: hidden units and the up bias scaled by their survival."""
        most = max(weights)
        return self._run(x, out, attributes, most, survival(weights, most))

    def _run(
        self,
        x: Tensor,
        out: Tensor,
        attributes: Mapping[str, Value],
        dim: int,
        alive: Tensor | None,
    ) -> Tensor:
        placement, scale = str(attributes["placement"]), attributes["scale"]
        assert isinstance(scale, int | float)
        net: Any = self if placement == MLP else self.placed[placement]
        f = ACTIVATIONS[str(attributes["activation"])]
        source = x if placement.endswith("parallel") else out  # (B, N, D)
        rate = self.dropout if self.training else 0.0
        h = squeezed(source, net, dim, f, rate)  # (B, N, D) -> (B, N, h)
        return lifted(out, h, net, scale=scale, alive=alive)  # (B, N, h) -> (B, N, D)
