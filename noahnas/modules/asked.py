"""What an arch asks of a module: which class it names, its attributes, and whether it has them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from noahnas.errors import ArchError, unknown
from noahnas.modules.base import PromptModule, Site
from noahnas.registry import resolve
from noahnas.space import Arch
from noahnas.space.schema import Value


@cache
def kind_of(name: str) -> type[PromptModule]:
    """The installed module of that name.

    Raises:
        ArchError: if there is none, or what is installed is no whole PromptModule.
    """
    kind: Any = resolve("noahnas.modules", name, "module", ArchError)
    if not (isinstance(kind, type) and issubclass(kind, PromptModule)):
        raise ArchError(f"module '{name}' is no noahnas.modules.PromptModule")
    lacking = sorted(kind.__abstractmethods__)
    if lacking or getattr(kind, "name", None) != name:
        fault = f"does not define {', '.join(lacking)}" if lacking else "has another `name`"
        raise ArchError(f"module '{name}': {kind.__name__} {fault}")
    return kind


def attributes_at(kind: type[PromptModule], arch: Arch, block: int) -> dict[str, Value]:
    """A module's attributes in one block; those that the arch leaves out at their defaults."""
    part = arch[kind.name]
    if not part["dim"][block]:
        return kind.complete({})
    return kind.complete({key: values[block] for key, values in part.items() if key != "dim"})


def check_sites(kind: type[PromptModule], told: Mapping[str, Value]) -> None:
    """Raise ArchError where a module acts at a site that no block has: nothing would happen."""
    known = get_args(Site)
    for site in kind.sites(**told):
        if site not in known:
            raise ArchError(f"module '{kind.name}': {unknown('site', site, known)}")


def check_asked(kind: type[PromptModule], arch: Arch) -> None:
    """Raise ArchError where an arch asks a module for what it does not have."""
    for key, values in arch[kind.name].items():
        if key == "dim":
            most = max(arch.dims(kind.name))
            over = kind.limit is not None and most > kind.limit
            faults = [f"is at most {kind.limit}, not {most}"] if over else []
        elif key in kind.attributes:
            dims = arch.dims(kind.name)
            declared = kind.attributes[key]
            faults = [
                fault
                for dim, value in zip(dims, values, strict=True)
                if dim and (fault := declared.fault(value))
            ]
        else:
            raise ArchError(f"{kind.name}: {unknown('attribute', key, ('dim', *kind.attributes))}")
        if faults:
            raise ArchError(f"{kind.name}.{key} {faults[0]}")
