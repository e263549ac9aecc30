"""Space: a declared set of architectures, compiled to an ordered list of ordinal genes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from noahnas.errors import ArchError, Fault, SpaceError, unknown
from noahnas.registry import installed
from noahnas.space.arch import Arch
from noahnas.space.count import Counter, ModuleCounter, uniform_below
from noahnas.space.declaration import Budget, ModuleSpace, params_of
from noahnas.space.schema import Shape, Value

MAX_REJECTIONS = 100_000


@dataclass(frozen=True)
class Gene:
    """One ordinal choice; a dim counts only where its module's depth reaches (`Space.active`)."""

    name: str  # "vpt.depth" or "vpt.dim.3"
    choices: tuple[int, ...]  # ascending
    block: int | None = None  # the block of a dim; None for a depth


@dataclass(frozen=True, eq=False)
class Space:
    """A set of architectures over the blocks of one backbone.

    Unbound, it answers for ViT-B/16: 12 blocks of width 768. `bind` fits it to another backbone.

    Raises:
        SpaceError: if a module is unknown or has no choices.
    """

    name: str
    modules: Mapping[str, ModuleSpace]
    description: str = ""
    budget: Budget | None = None
    blocks: int = field(default=12, kw_only=True)
    width: int = field(default=768, kw_only=True)  # token width D

    def __post_init__(self) -> None:
        if not self.modules:
            raise SpaceError(f"space '{self.name}'", [Fault(0, 0, "no modules")])
        known = installed("noahnas.modules")
        strange = [Fault(0, 0, unknown("module", m, known)) for m in self.modules if m not in known]
        if strange:
            raise SpaceError(f"space '{self.name}'", strange)
        if self.blocks < 1 or self.width < 1:
            raise SpaceError(
                f"space '{self.name}'", [Fault(0, 0, "blocks and width are at least 1")]
            )
        object.__setattr__(self, "modules", dict(sorted(self.modules.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and (self.to_dict(), self.blocks, self.width) == (
            other.to_dict(),
            other.blocks,
            other.width,
        )

    def __hash__(self) -> int:
        return hash((json.dumps(self.to_dict(), sort_keys=True), self.blocks, self.width))

    # --- where it comes from -----------------------------------------------------------------

    @classmethod
    def load(cls, name_or_path: str | Path) -> Space:
        """A shipped space by name, or a space file by path.

        Raises:
            SpaceError: with every fault's line and column.
        """
        from noahnas.space.load import load_space

        return load_space(name_or_path)

    def bind(
        self, backbone: Any = None, *, blocks: int | None = None, width: int | None = None
    ) -> Space:
        """The same space over another backbone: a timm model, or its number of blocks and width.

        Raises:
            SpaceError: if a depth exceeds the number of blocks.
        """
        if backbone is not None:
            blocks, width = len(backbone.blocks), int(backbone.embed_dim)
        bound = replace(
            self,
            blocks=self.blocks if blocks is None else blocks,
            width=self.width if width is None else width,
        )
        _ = bound.genes
        return bound

    def with_budget(self, params: int) -> Space:
        """The same space under another parameter budget."""
        return replace(self, budget=Budget(params))

    def to_dict(self) -> dict[str, Any]:
        """The declaration as a space file holds it; name and description included."""
        modules = {
            name: {"dim": list(part.dim)} | ({"depth": list(part.depth)} if part.depth else {})
            for name, part in self.modules.items()
        }
        budget = {"budget": {"params": self.budget.params}} if self.budget else {}
        return {"name": self.name, "description": self.description, "modules": modules} | budget

    # --- genes -------------------------------------------------------------------------------

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Per module, alphabetically: its depth, then its dim in each block that a depth reaches.

        Raises:
            SpaceError: if a depth exceeds the number of blocks.
        """
        genes: list[Gene] = []
        for name, part in self.modules.items():
            depths = part.depth or (self.blocks,)
            if depths[-1] > self.blocks:
                message = (
                    f"{name}.depth {depths[-1]} exceeds the backbone's {self.blocks} blocks; "
                    "choose a space whose depths fit it"
                )
                raise SpaceError(f"space '{self.name}'", [Fault(0, 0, message)])
            genes.append(Gene(f"{name}.depth", depths))
            genes += [Gene(f"{name}.dim.{block}", part.dim, block) for block in range(depths[-1])]
        return tuple(genes)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where in a gene vector each module's genes stand: its depth first, then its dims."""
        slices, start = {}, 0
        for name, part in self.modules.items():
            length = 1 + (part.depth or (self.blocks,))[-1]
            slices[name] = slice(start, start + length)
            start += length
        return slices

    def decode(self, vector: Sequence[int]) -> Arch:
        """The arch of a gene vector (one choice index per gene). Dims past the depth are inactive.

        Raises:
            ArchError: if the vector's length or an index does not fit the genes.
        """
        if len(vector) != len(self.genes):
            raise ArchError(f"{len(vector)} indices for {len(self.genes)} genes")
        for gene, index in zip(self.genes, vector, strict=True):
            if not 0 <= index < len(gene.choices):
                raise ArchError(f"{gene.name} has {len(gene.choices)} choices; no index {index}")
        return Arch(**{name: self._dims(vector, where) for name, where in self.slices.items()})

    def _dims(self, vector: Sequence[int], where: slice) -> tuple[int, ...]:
        depth = self.genes[where.start].choices[vector[where.start]]
        first = where.start + 1
        dims = [self.genes[g].choices[vector[g]] for g in range(first, first + depth)]
        return (*dims, *(0,) * (self.blocks - depth))

    def active(self, vector: Sequence[int]) -> list[bool]:
        """Which genes of a vector count: depths always, a dim where the depth reaches its block."""
        mask: list[bool] = []
        for where in self.slices.values():
            depth = self.genes[where.start].choices[vector[where.start]]
            mask += [True] + [block < depth for block in range(where.stop - where.start - 1)]
        return mask

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """The lexicographically smallest gene vector that decodes to `arch`.

        Raises:
            ArchError: if the arch is not in the space; says why.
        """
        reason = self.misfit(arch)
        if reason:
            raise ArchError(reason)
        vector: list[int] = []
        for name, where in self.slices.items():
            dims = arch.dims(name) if name in arch else (0,) * self.blocks
            depth = next(d for d in self.genes[where.start].choices if self._reaches(name, dims, d))
            choices = self.modules[name].dim
            vector.append(self.genes[where.start].choices.index(depth))
            vector += [choices.index(dim) for dim in dims[:depth]]
            vector += [0] * (where.stop - where.start - 1 - depth)
        return tuple(vector)

    def _reaches(self, name: str, dims: Sequence[int], depth: int) -> bool:
        return not any(dims[depth:]) and set(dims[:depth]) <= set(self.modules[name].dim)

    def misfit(self, arch: Arch) -> str | None:
        """Why an arch is not a point of this space, budget apart; None if it is one."""
        if arch.blocks not in (0, self.blocks):
            return f"the arch has {arch.blocks} blocks, the space {self.blocks}"
        for name in arch.modules:
            if name not in self.modules:
                return unknown("module", name, self.modules)
            if set(arch[name]) != {"dim"}:
                extra = ", ".join(sorted(set(arch[name]) - {"dim"}))
                return f"{name}: this space declares no attribute {extra}"
        for name, where in self.slices.items():
            dims = arch.dims(name) if name in arch else (0,) * self.blocks
            depths = self.genes[where.start].choices
            if not any(self._reaches(name, dims, depth) for depth in depths):
                return (
                    f"{name} {list(dims)} is none of dims {self.modules[name].dim}, depth {depths}"
                )
        return None

    @property
    def choices(self) -> dict[str, dict[str, tuple[Value, ...]]]:
        """Per module and attribute, dim included: every value that any block may take."""
        return {name: {"dim": part.dim} for name, part in self.modules.items()}

    # --- counting and cost -------------------------------------------------------------------

    @cached_property
    def size(self) -> int:
        """Number of distinct architectures, exactly; the budget is not applied."""
        return math.prod(
            len(part.dim) ** depths[-1]
            if 0 in part.dim
            else sum(len(part.dim) ** d for d in depths)
            for part, depths in (
                (self.modules[name], self.genes[where.start].choices)
                for name, where in self.slices.items()
            )
        )

    @property
    def shape(self) -> Shape:
        """What of the backbone decides prices."""
        return Shape(self.blocks, self.width)

    @cached_property
    def _prices(self) -> dict[tuple[str, int], int]:
        return {
            (name, dim): params_of(name, self.shape, dim) if dim else 0
            for name, part in self.modules.items()
            for dim in {0, *part.dim}
        }

    def price(self, module: str, dim: int) -> int:
        """Prompt parameters of one of the space's modules at one of its dims, in one block."""
        return self._prices[module, dim]

    def params(self, arch: Arch) -> int:
        """Trainable prompt parameters of an arch of this space; the head is not counted."""
        prices = self._prices
        return sum(prices[name, dim] for name in arch.modules for dim in arch.dims(name))

    def feasible(self, arch: Arch) -> bool:
        """Whether an arch of this space meets the budget."""
        return self.budget is None or self.params(arch) <= self.budget.params

    @cached_property
    def largest(self) -> Arch:
        """Every module at its greatest depth and dims; the budget is not applied."""
        return self.decode([len(gene.choices) - 1 for gene in self.genes])

    @cached_property
    def smallest(self) -> Arch:
        """The arch with the fewest parameters."""
        return self.decode([0] * len(self.genes))

    # --- drawing -----------------------------------------------------------------------------

    @cached_property
    def _counter(self) -> Counter:
        prices = self._prices
        return Counter(
            {
                name: ModuleCounter(
                    {dim: prices[name, dim] for dim in self.modules[name].dim},
                    self.genes[where.start].choices,
                    self.blocks,
                )
                for name, where in self.slices.items()
            }
        )

    @property
    def _limit(self) -> int:
        return self.budget.params if self.budget else self.params(self.largest)

    def count(self, params: int | None = None) -> int:
        """Number of distinct architectures with at most `params` prompt parameters, exactly.

        Without argument, under the declared budget.
        """
        return self._counter.count(self._limit if params is None else params)

    def draw(self, rng: np.random.Generator) -> Arch:
        """One arch of the paper prior, budget apart: each depth uniform, then each dim uniform."""
        return self.decode([int(rng.integers(len(gene.choices))) for gene in self.genes])

    def sample(
        self, rng: np.random.Generator, n: int = 1, prior: Literal["exact", "paper"] = "exact"
    ) -> list[Arch]:
        """`n` independent draws of architectures that meet the budget.

        `prior="exact"`: exactly uniform over distinct feasible architectures, by counting.
        `prior="paper"`: NOAH's draw (each depth uniform, then each dim), by rejection; the exact
        prior where none of 5000 such draws meets the budget.

        Raises:
            SpaceError: if nothing meets the budget, or fewer than one paper draw in 100 000 does.
        """
        if prior == "paper":
            return [self._feasible_draw(rng) for _ in range(n)]
        self.check_budget()
        limit = self._limit
        indices = uniform_below(rng, self.count(), n)
        return [Arch(**self._counter.unrank(index, limit)) for index in indices]

    @cached_property
    def _paper_passes(self) -> bool:
        """Whether any of 5000 paper draws meets the budget."""
        rng = np.random.default_rng(0)
        return any(self.feasible(self.draw(rng)) for _ in range(5000))

    def _feasible_draw(self, rng: np.random.Generator) -> Arch:
        if not self._paper_passes:
            return self.sample(rng)[0]
        for _ in range(MAX_REJECTIONS):
            arch = self.draw(rng)
            if self.feasible(arch):
                return arch
        raise self._tight(f"no paper draw in {MAX_REJECTIONS} meets the budget")

    def shrink(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """The arch with random genes lowered, a step at a time, until it meets the budget.

        Raises:
            SpaceError: if nothing meets the budget.
        """
        self.check_budget()
        vector = list(self.encode(arch))
        while not self.feasible(arch):
            active = self.active(vector)
            high = [i for i, index in enumerate(vector) if index and active[i]]
            vector[high[rng.integers(len(high))]] -= 1
            arch = self.decode(vector)
        return arch

    def check_budget(self) -> None:
        """Raise SpaceError if no architecture of the space meets its budget."""
        if not self.feasible(self.smallest):
            raise self._tight("no architecture meets the budget")

    def _tight(self, what: str) -> SpaceError:
        limit = self.budget.params if self.budget else 0
        message = (
            f"{what} of {limit} parameters at {self.blocks} blocks of width {self.width}; the "
            f"cheapest arch has {self.params(self.smallest)}: raise the budget, or offer smaller "
            "dims or depths"
        )
        return SpaceError(f"space '{self.name}'", [Fault(0, 0, message)])

    def enumerate(self) -> Iterator[Arch]:
        """Every distinct architecture once, budget apart. For small spaces."""
        seen: set[Arch] = set()
        for index in np.ndindex(*(len(gene.choices) for gene in self.genes)):
            arch = self.decode([int(i) for i in index])
            if arch not in seen:
                seen.add(arch)
                yield arch
