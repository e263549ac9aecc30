"""Budgets: what an architecture may cost, in parameters, FLOPs and time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from noahnas.errors import Fault, SpaceError
from noahnas.space.schema import Shape

_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(%(?:\s+of\s+\w+)?|ms|x|[kKmMgG]?)")
_UNIT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
BACKBONE, DEAREST = "% of backbone", "% of dearest"


@dataclass(frozen=True)
class Amount:
    """A number and its unit: "" (a count), "% of backbone", "% of dearest", "x" or "ms"."""

    value: Fraction
    unit: str = ""

    def __str__(self) -> str:
        return f"{_decimal(self.value)}{self.unit}"

    def plain(self) -> int | str:
        """As a space file holds it."""
        return str(self) if self.unit else int(self.value)


def params_amount(given: int | str | Amount) -> Amount:
    """A count (`640000`, `0.64M`) or a share (`0.5% of backbone`, `40% of dearest`).

    Raises:
        ValueError: if it is neither.
    """
    wanted = "a count such as 640000 or 0.64M, 0.5% of backbone, or 40% of dearest"
    found = _amount(given, wanted)
    if found.unit == "%":
        raise ValueError(f"'{given}' does not say of what: {given} of backbone, or of dearest")
    if found.unit not in ("", BACKBONE, DEAREST):
        raise ValueError(f"'{given}' is not {wanted}")
    if not found.unit and found.value.denominator != 1:
        raise ValueError(f"'{given}' is not a whole number of parameters")
    if found.unit == DEAREST and found.value > 100:
        raise ValueError(f"'{given}' is more than all of it")
    return found


def flops_amount(given: str | Amount) -> Amount:
    """FLOPs relative to the frozen backbone: `1.05x`.

    Raises:
        ValueError: if it is none, or less than 1x, which nothing meets.
    """
    wanted = "relative to the frozen backbone, such as 1.05x"
    found = _amount(given, wanted)
    if found.unit != "x":
        raise ValueError(f"'{given}' is not {wanted}")
    if found.value < 1:
        raise ValueError(f"'{given}' is less than the frozen backbone takes alone")
    return found


def latency_amount(given: str | Amount) -> Amount:
    """Milliseconds per image (`20ms`), or relative to the frozen backbone (`1.2x`).

    Raises:
        ValueError: if it is neither.
    """
    wanted = "a time such as 20ms, or relative to the frozen backbone, such as 1.2x"
    found = _amount(given, wanted)
    if found.unit not in ("x", "ms") or not found.value:
        raise ValueError(f"'{given}' is not {wanted}")
    return found


def _amount(given: int | str | Amount, wanted: str) -> Amount:
    if isinstance(given, Amount):
        return given
    match = _AMOUNT.fullmatch(str(given).strip()) if type(given) in (int, str) else None
    if not match:
        raise ValueError(f"{given!r} is not {wanted}")
    value, unit = Fraction(match[1]), " ".join(match[2].split()).lower()
    return Amount(value * _UNIT[unit]) if unit in _UNIT else Amount(value, unit)


def _decimal(value: Fraction) -> str:
    """Exactly, in decimal digits; amounts are read from such."""
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(int(value * 10**places)).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


@dataclass(frozen=True)
class Budget:
    """What an architecture may cost; what is None is not limited.

    Amounts may be given as text, as a space file holds them.

    Raises:
        SpaceError: if an amount is none.
    """

    params: Amount | int | str | None = None  # at most so many trainable parameters
    least: Amount | int | str | None = None  # at least so many
    head: bool = False  # whether the classifier counts
    flops: Amount | str | None = None
    latency: Amount | str | None = None

    def __post_init__(self) -> None:
        readers = {
            "params": params_amount,
            "least": params_amount,
            "flops": flops_amount,
            "latency": latency_amount,
        }
        for name, read in readers.items():
            given: Any = getattr(self, name)
            if given is not None:
                try:
                    object.__setattr__(self, name, read(given))
                except ValueError as e:
                    raise SpaceError("space", [Fault(0, 0, f"budget.{name}: {e}")]) from None

    @property
    def limits(self) -> dict[str, Amount]:
        """The amounts that are given, by field."""
        names = ("params", "least", "flops", "latency")
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}

    def to_dict(self) -> dict[str, Any]:
        """As a space file holds it."""
        plain = {name: amount.plain() for name, amount in self.limits.items()}
        found: dict[str, Any] = {}
        if "params" in plain or "least" in plain:
            parts = {"max": plain.pop("params", None), "min": plain.pop("least", None)}
            kept = {key: value for key, value in parts.items() if value is not None}
            kept |= {"head": True} if self.head else {}
            found["params"] = kept["max"] if set(kept) == {"max"} else kept
        return found | plain


def backbone_params(shape: Shape) -> int:
    """Parameters of a ViT of this shape without its head: blocks, embeddings, final norm.

    Its patches are taken to have 16×16 pixels; the exact number of ViT-B/16.
    """
    d, h = shape.width, shape.hidden
    block = 4 * d * d + 4 * d + 2 * d * h + d + h + 4 * d  # attention, MLP, two norms
    return shape.blocks * block + 3 * 16 * 16 * d + d + d + shape.tokens * d + 2 * d
