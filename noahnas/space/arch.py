"""Arch: one architecture, a frozen mapping of prompt module → one value per block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from noahnas.errors import ArchError, ArchFileError, Fault
from noahnas.space.declaration import MAX_DIM, plain
from noahnas.space.document import Checker, Node, parse, read, write_scalar
from noahnas.space.schema import Value

Part = Mapping[str, tuple[Value, ...]]


class Arch:
    """One point of a search space, in canonical form: frozen, hashable, equal by value.

    `Arch(vpt=(5, 5, 0, 0), lora={"dim": (8, 8, 8, 8), "alpha": (1, 1, 1, 1)})`: per module its
    attributes, each with one value per block. A bare sequence is shorthand for dims alone. A
    module with dim 0 everywhere is absent; where dim is 0 every other attribute is None. A space
    leaves out attributes that are at their default throughout (`Space.canonical`).

    Raises:
        ArchError: if a module has no dims, a dim is not a whole number ≥ 0, or lengths differ.
    """

    __slots__ = ("_parts",)

    def __init__(self, /, **modules: Sequence[int] | Mapping[str, Sequence[Value]]) -> None:
        parts: dict[str, dict[str, tuple[Value, ...]]] = {}
        lengths: dict[str, int] = {}
        for name in sorted(modules):
            given = modules[name]
            attributes = given if isinstance(given, Mapping) else {"dim": given}
            dims = _dims(name, attributes)
            lengths[name] = len(dims)
            if any(dims):
                parts[name] = {"dim": dims} | {
                    key: _masked(name, key, attributes[key], dims)
                    for key in sorted(attributes)
                    if key != "dim"
                }
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {n}" for name, n in lengths.items())
            raise ArchError(f"modules differ in their number of blocks: {told}")
        self._parts = parts

    @classmethod
    def trusted(cls, parts: Mapping[str, Mapping[str, tuple[Value, ...]]]) -> Arch:
        """An arch of values known to be canonical (modules may be absent); nothing is checked."""
        arch = object.__new__(cls)
        arch._parts = {name: dict(parts[name]) for name in sorted(parts) if any(parts[name]["dim"])}
        return arch

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules present, in alphabetical order."""
        return tuple(self._parts)

    @property
    def blocks(self) -> int:
        """Number of blocks; 0 for an arch with nothing in it, which fits any backbone."""
        return next((len(part["dim"]) for part in self._parts.values()), 0)

    def __getitem__(self, module: str) -> Part:
        return dict(self._parts[module])

    def __contains__(self, module: object) -> bool:
        return module in self._parts

    def dims(self, module: str) -> tuple[int, ...]:
        """Dims of one module, one per block; all 0 where it is absent, () if the arch is empty."""
        if module not in self._parts:
            return (0,) * self.blocks
        return self._parts[module]["dim"]  # type: ignore[return-value]  # checked by _dims

    def dim(self, module: str, block: int) -> int:
        """Dim of one module in one block; 0 = absent."""
        return self.dims(module)[block] if module in self._parts else 0

    @property
    def digest(self) -> str:
        """16 hex digits over the canonical mapping without absent modules."""
        text = json.dumps(self._parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arch) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Arch({', '.join(f'{k}={_plain(v)!r}' for k, v in self._parts.items())})"

    def to_dict(self) -> dict[str, list[Value] | dict[str, list[Value]]]:
        """Plain lists and mappings, as YAML and JSON hold them."""
        return {name: _plain(part) for name, part in self._parts.items()}

    @classmethod
    def from_dict(
        cls, mapping: Mapping[str, Sequence[int] | Mapping[str, Sequence[Value]]]
    ) -> Arch:
        """The inverse of `to_dict`.

        Raises:
            ArchError: if it is no mapping of lists, or a malformed arch.
        """
        if not isinstance(mapping, Mapping):
            raise ArchError("an architecture must be a mapping")
        for name, part in mapping.items():
            for values in part.values() if isinstance(part, Mapping) else [part]:
                if not isinstance(values, list | tuple) or not all(map(_is_plain, values)):
                    raise ArchError(f"{name} must hold lists of plain values")
        return cls(**dict(mapping))

    def to_yaml(self) -> str:
        """A YAML document that `from_yaml` reads back to an equal arch."""
        lines = []
        for name, part in self._parts.items():
            if set(part) == {"dim"}:
                lines.append(f"{name}: {_line(part['dim'])}")
            else:
                lines.append(f"{name}:")
                lines += [f"  {key}: {_line(values)}" for key, values in part.items()]
        return "\n".join(lines or ["{}"]) + "\n"

    @classmethod
    def from_yaml(cls, text: str, source: str = "arch") -> Arch:
        """Read an arch from YAML.

        Raises:
            ArchFileError: with every fault's line and column.
        """
        root = parse(text, source, ArchFileError)
        check = Checker()
        modules: dict[str, Mapping[str, Sequence[Value]]] = {}
        for name, node in check.mapping(root, "an architecture", known=None).items():
            given = node.value if isinstance(node.value, dict) else {"dim": node}
            modules[name] = {key: _values(check, f"{name}.{key}", n) for key, n in given.items()}
        if check.faults:
            raise ArchFileError(source, check.faults)
        try:
            return cls(**modules)
        except ArchError as e:
            raise ArchFileError(source, [Fault(root.line, root.column, str(e))]) from None

    @classmethod
    def load(cls, path: str | Path) -> Arch:
        """Read an arch file; errors as `from_yaml`."""
        return cls.from_yaml(read(Path(path), ArchFileError), str(path))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _dims(module: str, attributes: Mapping[str, Sequence[Value]]) -> tuple[int, ...]:
    if "dim" not in attributes:
        raise ArchError(f"{module} has no 'dim'; known: {', '.join(attributes) or 'nothing'}")
    dims = tuple(attributes["dim"])
    for dim in dims:
        if type(dim) is not int or dim < 0:
            raise ArchError(f"{module}: a dim is a whole number of at least 0, not {dim!r}")
        if dim > MAX_DIM:
            raise ArchError(f"{module}: a dim is at most {MAX_DIM:,}, not {dim!r}")
    return dims  # type: ignore[return-value]  # every item was checked just above


def _masked(
    module: str, key: str, values: Sequence[Value], dims: Sequence[int]
) -> tuple[Value, ...]:
    if len(values) != len(dims):
        raise ArchError(f"{module}.{key} has {len(values)} values for {len(dims)} blocks")
    return tuple(plain(value) if dim else None for value, dim in zip(values, dims, strict=True))


def _plain(part: Part) -> list[Value] | dict[str, list[Value]]:
    if set(part) == {"dim"}:
        return list(part["dim"])
    return {key: list(values) for key, values in part.items()}


def _line(values: Sequence[Value]) -> str:
    return f"[{', '.join(write_scalar(value) for value in values)}]"


def _values(check: Checker, what: str, node: Node) -> list[Value]:
    if not isinstance(node.value, list):
        check.fault(node, f"{what} must be a list with one value per block")
        return []
    values: list[Value] = []
    for item in node.value:
        if isinstance(item.value, (list, dict)):
            check.fault(item, f"{what} must hold plain values")
        elif what.endswith(".dim"):
            values.append(check.integer(item, what))
        else:
            values.append(item.value)
    return values
