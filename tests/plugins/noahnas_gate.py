"""A prompt module as a third party would register it, with attributes of every kind."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from noahnas.modules import PromptModule
from noahnas.space import Attribute, Shape


class Gate(PromptModule):
    """Adds nothing; its price depends on its attribute `sides`."""

    name = "gate"
    site = "mlp"
    attributes = {  # noqa: RUF012
        "sides": Attribute("one", "whether one side or both have weights", ("one", "both")),
        "alpha": Attribute(None, "a scale", low=0, high=100),
        "bias": Attribute(False, "whether it has a bias", (False, True)),
    }

    @staticmethod
    def params(shape: Shape, dim: int, **attributes: Any) -> int:
        """D·h for each side, and D for a bias."""
        sides = 2 if attributes.get("sides", "one") == "both" else 1
        return dim * shape.width * sides + shape.width * bool(dim and attributes.get("bias"))

    @staticmethod
    def flops(shape: Shape, dim: int, **attributes: Any) -> int:
        """2·N·D·h."""
        return 2 * shape.tokens * shape.width * dim

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Nothing, (B, N, D)."""
        return x * 0
