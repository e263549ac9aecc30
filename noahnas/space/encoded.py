"""Encoded: a bound space as ordinal genes, and which architectures they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from noahnas.errors import ArchError, unknown
from noahnas.space import nearby
from noahnas.space.arch import Arch
from noahnas.space.declaration import schema_of
from noahnas.space.genes import Gene
from noahnas.space.schema import Value
from noahnas.space.spec import Spec


@dataclass(frozen=True)
class Contained:
    """Whether an arch is in a space: true, or false with the reason."""

    reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, eq=False)
class Encoded(Spec):
    """Gene vectors of a space, and the architectures that they mean."""

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Per module, alphabetically: its depth, its dims block by block, its attributes.

        Raises:
            SpaceError: if the declaration does not fit the backbone.
        """
        return tuple(gene for part in self.parts.values() for gene in part.genes)

    @cached_property
    def counts(self) -> np.ndarray:
        """How many choices each gene has."""
        return np.array([len(gene.choices) for gene in self.genes])  # genes

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where in a gene vector each module's genes stand."""
        slices, start = {}, 0
        for name, part in self.parts.items():
            slices[name] = slice(start, start + len(part.genes))
            start += len(part.genes)
        return slices

    def decode(self, vector: Sequence[int]) -> Arch:
        """The arch of a gene vector, one choice index per gene, rules apart.

        Raises:
            ArchError: if the vector's length or an index does not fit the genes.
        """
        if len(vector) != len(self.genes):
            raise ArchError(f"{len(vector)} indices for {len(self.genes)} genes")
        for gene, index in zip(self.genes, vector, strict=True):
            if not 0 <= index < len(gene.choices):
                raise ArchError(f"{gene.name} has {len(gene.choices)} choices; no index {index}")
        return Arch.trusted(
            {name: self.parts[name].decode(vector[where]) for name, where in self.slices.items()}
        )

    def active(self, vector: Sequence[int]) -> list[bool]:
        """Which genes of a vector count: depths, dims they reach, attributes of what is there."""
        return [
            on
            for name, where in self.slices.items()
            for on in self.parts[name].active(vector[where])
        ]

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """The lexicographically smallest gene vector that decodes to `arch`.

        Raises:
            ArchError: if the arch is not in the space; says why.
        """
        reason = self.misfit(arch)
        if reason:
            raise ArchError(reason)
        return tuple(self.vector(arch))

    def vector(self, arch: Arch) -> list[int]:
        """The smallest gene vector that decodes to `arch`, rules apart.

        Raises:
            ArchError: if an attribute or a dim is none of the choices.
        """
        values = self.values(self.canonical(arch))
        encodings = {name: part.encodings(values[name]) for name, part in self.parts.items()}
        if not all(encodings.values()) or not set(arch.modules) <= set(self.parts):
            raise ArchError(self.misfit(arch) or "the arch is not in the space")
        return [index for found in encodings.values() for index in found[0]]

    def values(self, arch: Arch) -> dict[str, Mapping[str, Sequence[Value]]]:
        """Every module's values, absent ones' dims being 0, attributes as the arch states them."""
        absent = {"dim": (0,) * self.blocks}
        present = {name: arch[name] for name in arch.modules}
        return {name: present.get(name, absent) for name in self.parts}

    def canonical(self, arch: Arch) -> Arch:
        """The arch without attributes that are at their default wherever their module is."""
        if all(set(arch[name]) == {"dim"} for name in arch.modules):
            return arch
        kept: dict[str, dict[str, tuple[Value, ...]]] = {}
        for name in arch.modules:
            part = arch[name]
            schema = schema_of(name)
            kept[name] = {
                key: row
                for key, row in part.items()
                if key not in schema
                or any(row[i] != schema[key].default for i, dim in enumerate(part["dim"]) if dim)
            }
        return Arch.trusted(kept)

    def contains(self, arch: Arch) -> Contained:
        """Whether the arch is a point of this space, budget apart; false with the reason."""
        return Contained(self.misfit(arch))

    def __contains__(self, arch: object) -> bool:
        return isinstance(arch, Arch) and self.misfit(arch) is None

    def misfit(self, arch: Arch) -> str | None:
        """Why an arch is not a point of this space, budget apart; None if it is one."""
        if arch.blocks not in (0, self.blocks):
            return f"the arch has {arch.blocks} blocks, the space {self.blocks}"
        for name in arch.modules:
            if name not in self.modules:
                return unknown("module", name, self.modules)
        values = self.values(self.canonical(arch))
        for name, part in self.parts.items():
            reason = part.misfit(values[name])
            if reason:
                return reason
        broken = next((r for r in self.bound_rules if nearby.breaks_of(self, arch, r)), None)
        return f"it breaks the rule '{broken}'" if broken else None

    @property
    def choices(self) -> dict[str, dict[str, tuple[Value, ...]]]:
        """Per module and attribute, dim included: every value that any block may take."""
        return {
            name: {"dim": tuple(sorted(set().union(*part.choices)))} | dict(part.attributes)
            for name, part in self.parts.items()
        }
