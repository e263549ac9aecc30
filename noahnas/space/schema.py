"""Shape: what of a backbone decides prices; Attribute: what a module may be told beside its dim."""

from __future__ import annotations

from dataclasses import dataclass, field

Value = int | float | str | bool | None


@dataclass(frozen=True)
class Shape:
    """What of a backbone decides the price of prompt modules; by default that of ViT-B/16."""

    blocks: int = 12
    width: int = 768  # token width D
    hidden: int = 0  # units of a block's MLP; 0 = 4·D
    tokens: int = 197  # N: patches, class and register tokens, prompts apart

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", self.hidden or 4 * self.width)


@dataclass(frozen=True)
class Attribute:
    """An attribute of a prompt module beside dim: the values it may take, and its default.

    Either a closed set of `choices`, or any number in [low, high].
    """

    default: Value
    help: str  # one line for `noahnas space schema`
    choices: tuple[Value, ...] = ()
    low: float = field(default=float("-inf"), kw_only=True)
    high: float = field(default=float("inf"), kw_only=True)

    def fault(self, value: Value) -> str | None:
        """Why `value` cannot be taken; None if it can."""
        if self.choices:
            known = ", ".join(map(str, self.choices))
            same = [c for c in self.choices if type(c) is type(value) and c == value]
            return None if same else f"must be one of {known}, not {value!r}"
        if type(value) not in (int, float):
            return f"must be a number, not {value!r}"
        inside = self.low <= value <= self.high  # type: ignore[operator]  # a number, as just seen
        return None if inside else f"must lie in {self.low:g}…{self.high:g}, not {value!r}"
