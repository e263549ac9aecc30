"""Ranges of a space file: `{from: 4, to: 32, step: 4}`, `{from: 4, to: 64, factor: 2}`."""

from __future__ import annotations

from fractions import Fraction

from noahnas.space.declaration import MAX_CHOICES
from noahnas.space.document import Checker, Node, describe

RANGE = ("from", "to", "step", "factor")


def read_range(check: Checker, node: Node, what: str) -> list[int | float]:
    """The values of `{from: 4, to: 32, step: 4}` or `{from: 4, to: 64, factor: 2}`."""
    keys = check.mapping(node, what, RANGE)
    form = f"{what} must be a list, or a range such as {{from: 4, to: 32, step: 4}}"
    if set(node.value or ()) - set(keys):  # type: ignore[arg-type]  # a mapping
        return []
    if not {"from", "to"} <= set(keys) or ("step" in keys) == ("factor" in keys):
        check.fault(node, f"{form}: it needs from, to, and either step or factor")
        return []
    numbers: dict[str, Fraction] = {}
    for key, item in keys.items():
        if type(item.value) in (int, float) and abs(float(item.value)) <= 1e15:  # type: ignore[arg-type]
            numbers[key] = Fraction(str(item.value))
        else:
            check.fault(item, f"{what}.{key} must be a number, not {describe(item)}")
    if len(numbers) < 3:
        return []
    start, stop = numbers["from"], numbers["to"]
    if start > stop:
        check.fault(keys["to"], f"{what}: to ({stop}) is less than from ({start})")
        return []
    step, factor = numbers.get("step", Fraction(0)), numbers.get("factor", Fraction(1))
    if "step" in keys and step <= 0:
        check.fault(keys["step"], f"{what}.step must be more than 0, not {float(step):g}")
        return []
    if "factor" in keys and (factor <= 1 or start <= 0):
        check.fault(keys["factor"], f"{what}: a factor is more than 1, and from more than 0")
        return []
    values = [start]
    while values[-1] < stop and len(values) <= MAX_CHOICES:
        values.append(values[-1] * factor + step)
    if len(values) > MAX_CHOICES:
        check.fault(node, f"{what} names more than {MAX_CHOICES} values")
        return []
    if values[-1] != stop:
        last, end = float(values[-2]), float(stop)
        check.fault(keys["to"], f"{what}: to ({end:g}) is not reached; the last is {last:g}")
        return []
    return [int(v) if v.denominator == 1 else float(v) for v in values]
