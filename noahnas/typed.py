"""Plain values, as JSON holds them, as what type hints say: files of a run may be a stranger's."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

LARGEST = 2**63 - 1  # whole number, in absolute value
FARTHEST = 1e100  # other number, in absolute value: sums and squares of many such are finite
T = TypeVar("T")


def typed(kind: type[T], value: Any, where: str) -> T:
    """A value as a dataclass, which its fields' hints tell how to read.

    Args:
        kind: a dataclass of plain values, lists, mappings and other such dataclasses.
        value: what a file holds; a value that is a `kind` already is taken as it is.
        where: what messages call it.

    Raises:
        ValueError: naming the first place that lacks a value or holds one of another kind.
    """
    return cast(T, _typed(kind, value, where))


def _typed(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _either(parts, value, where)
    if is_dataclass(kind):
        return value if isinstance(value, cast(type, kind)) else _record(kind, value, where)
    if origin is tuple:
        return tuple(_typed(parts[0], item, where) for item in _sequence(value, where))
    if origin in (list, Sequence):
        return [_typed(parts[0], item, where) for item in _sequence(value, where)]
    if origin in (dict, Mapping):
        entries = _mapping(value, where)
        return {key: _typed(parts[1], item, f"{where}.{key}") for key, item in entries.items()}
    return _plain(kind, value, where)


def _either(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        try:
            return _typed(kind, value, where)
        except ValueError:
            continue
    return _typed(others[-1], value, where)


def _record(kind: Any, value: Any, where: str) -> Any:
    entries, hints = _mapping(value, where), get_type_hints(kind)
    known = {f.name for f in fields(kind) if f.init}
    odd = sorted(set(entries) - known)
    if odd:
        raise ValueError(f"{where} holds the unknown {odd[0]!r}")
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in entries:
            raise ValueError(f"{where} lacks {f.name!r}")
    return kind(**{k: _typed(hints[k], item, f"{where}.{k}") for k, item in entries.items()})


def _plain(kind: Any, value: Any, where: str) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    if kind is float and (whole or (isinstance(value, float) and abs(value) <= FARTHEST)):
        return float(value)
    if type(value) is kind and kind is not float and (kind is not int or whole):
        return value
    raise ValueError(f"{where} is {str(value)[:40]!r}, which is not of the kind {kind.__name__!r}")


def _sequence(value: Any, where: str) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"{where} is no list")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return value
    raise ValueError(f"{where} is no mapping")
