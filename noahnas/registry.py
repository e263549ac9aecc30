"""Plug-ins by entry point: prompt modules, strategies and data sources register alike.

Ours use the same groups as anybody's: `noahnas.modules`, `noahnas.strategies`, `noahnas.data`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from noahnas.errors import NoahnasError, unknown


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Every entry point of a group, by name, without importing any.

    Raises:
        NoahnasError: if two distributions register different things under one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            names = " and ".join(p.dist.name if p.dist else "?" for p in (other, point))
            raise NoahnasError(f"{names} both register '{point.name}' in {group}; uninstall one")
    return found


def origin(group: str, name: str) -> str:
    """The distribution that brings an entry point, as `name version`."""
    dist = installed(group)[name].dist
    return f"{dist.name} {dist.version}" if dist else "unknown"


@cache
def resolve(group: str, name: str, kind: str, error: type[NoahnasError] = NoahnasError) -> Any:
    """Import what entry point `name` of `group` stands for; `kind` is its word in errors.

    Raises:
        NoahnasError: of type `error`, if no such entry point is installed or it cannot be imported.
    """
    points = installed(group)
    if name not in points:
        if not points:
            raise error(f"no {kind} is registered: install noahnas, for example `pip install -e .`")
        raise error(unknown(kind, name, points))
    try:
        return points[name].load()
    except (ImportError, AttributeError) as e:
        raise error(f"{kind} '{name}' of {origin(group, name)} cannot be imported: {e}") from e
