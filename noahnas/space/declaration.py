"""What a space declares: the choices of each prompt module, the budget, and what a dim costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noahnas.errors import Fault, SpaceError
from noahnas.registry import resolve
from noahnas.space.schema import Shape, Value


def params_of(module: str, shape: Shape, dim: int, **attributes: Value) -> int:
    """Trainable parameters of one prompt module in one block of a backbone of `shape`.

    Raises:
        SpaceError: if no such module is installed.
    """
    kind: Any = resolve("noahnas.modules", module, "module", _ModuleError)
    return int(kind.params(shape, dim, **attributes))


class _ModuleError(SpaceError):
    def __init__(self, message: str) -> None:
        super().__init__("space", [Fault(0, 0, message)])


@dataclass(frozen=True)
class ModuleSpace:
    """The choices of one prompt module: its dim in each block, and how many blocks have it.

    `depth=()` means every block. Choices are kept in ascending order.
    """

    dim: tuple[int, ...]
    depth: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", _ascending("dim", self.dim))
        if self.depth:
            object.__setattr__(self, "depth", _ascending("depth", self.depth))


def _ascending(what: str, values: Sequence[int]) -> tuple[int, ...]:
    bad = [v for v in values if type(v) is not int or v < 0]
    if bad or not values or len(set(values)) < len(values):
        message = f"{what} must hold distinct whole numbers of at least 0, not {list(values)}"
        raise SpaceError("space", [Fault(0, 0, message)])
    return tuple(sorted(values))


@dataclass(frozen=True)
class Budget:
    """What an architecture may cost."""

    params: int  # trainable prompt parameters, head excluded
