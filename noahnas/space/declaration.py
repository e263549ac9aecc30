"""What a space declares of one prompt module: choices of dim, depth and attributes, and ties."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from noahnas.errors import Fault, SpaceError
from noahnas.registry import resolve
from noahnas.space.schema import Attribute, Shape, Value

TIES = ("none", "all", "pairs", "thirds")  # which blocks share a gene
MAX_CHOICES = 1000
MAX_DIM = 1_000_000
Depth = int | Fraction | str  # a count, a share of the blocks, or "all"
_FRACTION = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


@dataclass(frozen=True)
class Choices:
    """The values an attribute may take, ascending, and which blocks share one."""

    values: tuple[Value, ...]
    tie: str = "all"

    def __post_init__(self) -> None:
        values = [plain(value) for value in _listed(self.values)]
        odd = [v for v in values if not isinstance(v, (bool, int, float, str, type(None)))]
        if odd:
            raise _refused(f"an attribute takes plain values, not {odd[0]!r}")
        _one_of("tie", self.tie, TIES)
        _distinct("an attribute", values)
        object.__setattr__(self, "values", tuple(sorted(values, key=order)))


@dataclass(frozen=True)
class ModuleSpace:
    """The choices of one prompt module over the blocks of a backbone.

    Choices are kept in ascending order; one alone may stand without a sequence around it.

    Raises:
        SpaceError: if a value is of the wrong kind, or stands twice.
    """

    dim: Sequence[int] = ()  # of each block that no selector in `blocks` names; () = absent there
    depth: Sequence[Depth] = ()  # how many blocks have the module; () = every block
    start: str = "first"  # the end that depth counts from: first or last
    tie: str = "none"  # which blocks share a dim
    blocks: Mapping[str, Sequence[int]] = field(default_factory=dict)  # selector → dims
    attributes: Mapping[str, Choices | Sequence[Value] | Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("dim", dims("dim", self.dim) if _listed(self.dim) else ())
        put("depth", depths(self.depth))
        put("blocks", {key: dims(f"blocks.{key}", self.blocks[key]) for key in sorted(self.blocks)})
        put("attributes", {key: _choices(self.attributes[key]) for key in sorted(self.attributes)})
        _one_of("start", self.start, ("first", "last"))
        _one_of("tie", self.tie, TIES)
        if not self.dim and not self.blocks:
            raise _refused("dim must hold distinct whole numbers of at least 0, not []")

    @property
    def offered(self) -> dict[str, Choices]:
        """The choices of each declared attribute beside dim."""
        return dict(self.attributes)  # type: ignore[arg-type]  # made so by __post_init__

    def to_dict(self) -> dict[str, Any]:
        """The declaration as a space file holds it."""
        found: dict[str, Any] = {}
        if self.dim:
            found["dim"] = list(self.dim)
        if self.blocks:
            found["blocks"] = {key: list(values) for key, values in self.blocks.items()}
        if self.depth:
            found["depth"] = [d if isinstance(d, int) else str(d) for d in self.depth]
        if self.start != "first":
            found["from"] = self.start
        if self.tie != "none":
            found["tie"] = self.tie
        for name, choices in self.offered.items():
            values = list(choices.values)
            tied = {"choices": values, "tie": choices.tie}
            found[name] = values if choices.tie == "all" else tied
        return found


def dims(what: str, values: Sequence[int]) -> tuple[int, ...]:
    """Distinct dims, ascending."""
    given = _listed(values)
    bad = [v for v in given if type(v) is not int or not 0 <= v <= MAX_DIM]
    if bad or not given or len(set(given)) < len(given):
        raise _refused(f"{what} must hold distinct whole numbers of at least 0, not {given}")
    return tuple(sorted(given))


def depths(values: Sequence[Depth]) -> tuple[Depth, ...]:
    """Distinct depths: counts, then fractions, then `all`."""
    found = [read_depth(value) for value in _listed(values)]
    _distinct("depth", found)
    return tuple(sorted(found, key=lambda d: (d == "all", isinstance(d, Fraction), d)))


def read_depth(value: object) -> Depth:
    """A count of blocks as it is, `1/4` as a Fraction, `all` for every block.

    Raises:
        SpaceError: if it is none of these.
    """
    if type(value) is int and 0 <= value <= MAX_DIM:
        return value
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    share = Fraction(int(match[1]), int(match[2])) if match else value
    if value == "all" or (isinstance(share, Fraction) and share == 1):
        return "all"
    if isinstance(share, Fraction) and 0 < share < 1:
        return share
    raise _refused(f"depth must be a count of blocks, a fraction such as 1/4, or all, not {value}")


def plain(value: Value) -> Value:
    """A whole float as an int, so that 2.0 and 2 are one choice with one digest."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def order(value: Value) -> tuple[int, Any]:
    """Sorts values of any kind: nothing, truth values, numbers, text."""
    if value is None:
        return (0, 0)
    if isinstance(value, str):
        return (3, value)
    return (1 if isinstance(value, bool) else 2, value)


def schema_of(module: str) -> Mapping[str, Attribute]:
    """The attributes beside dim that a prompt module has.

    Raises:
        SpaceError: if no such module is installed.
    """
    kind: Any = resolve("noahnas.modules", module, "module", ModuleUnknownError)
    schema: Mapping[str, Attribute] = kind.attributes
    return schema


def fault_of(schema: Attribute, value: Value) -> str | None:
    """Why an attribute cannot have `value`; its default it always can."""
    if type(value) is type(schema.default) and value == schema.default:
        return None
    return schema.fault(value)


def params_of(module: str, shape: Shape, dim: int, **attributes: Value) -> int:
    """Trainable parameters of one prompt module in one block of a backbone of `shape`.

    Raises:
        SpaceError: if no such module is installed.
    """
    kind: Any = resolve("noahnas.modules", module, "module", ModuleUnknownError)
    return int(kind.params(shape, dim, **attributes))


def flops_of(module: str, shape: Shape, dim: int, **attributes: Value) -> int:
    """What one prompt module in one block adds to the FLOPs of a forward, per image.

    Raises:
        SpaceError: if no such module is installed, or it does not tell.
    """
    kind: Any = resolve("noahnas.modules", module, "module", ModuleUnknownError)
    told: Callable[..., int] | None = getattr(kind, "flops", None)
    if told is None:
        raise _refused(f"module '{module}' does not tell its FLOPs: leave out budget.flops")
    return int(told(shape, dim, **attributes))


class ModuleUnknownError(SpaceError):
    """A prompt module that is not installed."""

    def __init__(self, message: str) -> None:
        super().__init__("space", [Fault(0, 0, message)])


def _refused(message: str) -> SpaceError:
    return SpaceError("space", [Fault(0, 0, message)])


def _listed(values: Any) -> list[Any]:
    single = isinstance(values, (str, int, float, Fraction)) or values is None
    return [values] if single else list(values)


def _choices(given: Choices | Sequence[Value] | Value) -> Choices:
    return given if isinstance(given, Choices) else Choices(tuple(_listed(given)))


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise _refused(f"{what} must be one of {', '.join(known)}, not {value!r}")


def _distinct(what: str, values: Sequence[Any]) -> None:
    if not values and what != "depth":
        raise _refused(f"{what} must name at least one value")
    if len({(type(v) is bool, v) for v in values}) < len(values):
        raise _refused(f"{what} names a value twice: {list(values)}")
    if len(values) > MAX_CHOICES:
        raise _refused(f"{what} has more than {MAX_CHOICES} choices")
