"""Shape: what of a backbone decides prices; Attribute: what a module may be told beside its dim."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

Value = int | float | str | bool | None
LISTED = 12  # choices that an error lists


@dataclass(frozen=True)
class Shape:
    """What of a backbone decides the price of prompt modules; by default that of ViT-B/16."""

    blocks: int = 12
    width: int = 768  # token width D
    hidden: int = 0  # units of a block's MLP; 0 = 4·D
    tokens: int = 197  # N: patches, class and register tokens, prompts apart
    gated: bool = False  # whether the MLP's first layer computes a gate beside the hidden units

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", self.hidden or 4 * self.width)

    @classmethod
    def of(cls, backbone: Any) -> Shape:
        """The shape of a timm vision transformer."""
        mlp = backbone.blocks[0].mlp
        hidden = mlp.fc2.in_features
        gated = not hasattr(mlp, "fc1") or mlp.fc1.out_features == 2 * hidden
        tokens = backbone.patch_embed.num_patches + backbone.num_prefix_tokens
        return cls(len(backbone.blocks), int(backbone.embed_dim), int(hidden), int(tokens), gated)

    @property
    def fc1(self) -> int:
        """Outputs of the MLP's first layer: hidden units, and as many gates where it has them."""
        return 2 * self.hidden if self.gated else self.hidden


@dataclass(frozen=True)
class Attribute:
    """An attribute of a prompt module beside dim: the values it may take, and its default.

    Either a closed set of `choices`, or any number in [low, high], or None where that is the
    default.
    """

    default: Value
    help: str  # one line for `noahnas space schema`
    choices: tuple[Value, ...] = ()
    low: float = field(default=float("-inf"), kw_only=True)
    high: float = field(default=float("inf"), kw_only=True)

    def fault(self, value: Value) -> str | None:
        """Why `value` cannot be taken; None if it can."""
        if self.choices:
            same = [c for c in self.choices if type(c) is type(value) and c == value]
            return None if same else f"must be {self._listed(value)}, not {value!r}"
        if value is None and self.default is None:
            return None
        if type(value) not in (int, float):
            return f"must be a number, not {value!r}"
        inside = self.low <= value <= self.high  # type: ignore[operator]  # a number, as just seen
        return None if inside else f"must lie in {self.low:g}…{self.high:g}, not {value!r}"

    def _listed(self, value: Value) -> str:
        """The choices, or of many the nearest to `value`."""
        names = [str(choice) for choice in self.choices]
        if len(names) <= LISTED:
            return f"one of {', '.join(names)}"
        near = [name for name in names if sorted(name) == sorted(str(value))]  # v+q for q+v
        near = near or difflib.get_close_matches(str(value), names, n=4, cutoff=0.0)
        return f"one of {len(names)} values such as {', '.join(near)}"
