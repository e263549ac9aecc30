"""Space: a declared set of architectures over the blocks of a backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from noahnas.errors import SpaceError
from noahnas.space import cost, draw, nearby, repair
from noahnas.space.arch import Arch
from noahnas.space.budget import Amount, params_amount
from noahnas.space.cases import Census
from noahnas.space.encoded import Encoded
from noahnas.space.paper import Paper
from noahnas.space.rules import terms_of
from noahnas.space.schema import Value
from noahnas.space.work import RELAXED_WORK, SIZE_WORK, UncountableError, Work


@dataclass(frozen=True, eq=False)
class Space(Encoded):
    """A set of architectures over the blocks of one backbone.

    Unbound, it answers for ViT-B/16: 12 blocks of width 768. `bind` fits it to another backbone.

    Raises:
        SpaceError: if a module is unknown, has no choices, or a rule speaks of what is not there.
    """

    @classmethod
    def load(cls, name_or_path: str | Path) -> Space:
        """A shipped space by name, or a space file by path.

        Raises:
            SpaceError: with every fault's line and column.
        """
        from noahnas.space.load import load_space

        return load_space(name_or_path)

    # --- counting and cost -------------------------------------------------------------------

    @cached_property
    def census(self) -> Census:
        """Every architecture that keeps to the rules, whatever it costs.

        Raises:
            SpaceError: if the rules are too tangled to count.
        """
        try:
            return Census(self.parts, self.bound_rules, None, work=Work(SIZE_WORK))
        except UncountableError:
            raise self.tangled("there are too many cases to count") from None

    @cached_property
    def relaxed(self) -> Census:
        """Every architecture that keeps to the rules about one module, or if need be to none."""
        alone = [r for r in self.bound_rules if len({t.module for t in terms_of(r)}) == 1]
        try:
            census = Census(self.parts, alone, None, work=Work(RELAXED_WORK))
            census.count()
        except UncountableError:
            census = Census(self.parts, (), None)
        return census

    @property
    def size(self) -> int:
        """Number of distinct architectures, exactly; rules are obeyed, the budget is not applied.

        Raises:
            SpaceError: if the rules are too tangled to count.
        """
        if self.counted_size is None:
            raise self.tangled("there are too many cases to count")
        return self.counted_size

    @cached_property
    def counted_size(self) -> int | None:
        """The size, or None where it is not counted."""
        _ = self.parts  # what does not fit the backbone is told as such
        try:
            return self.census.count()
        except (SpaceError, UncountableError):
            return None

    @cached_property
    def prices(self) -> cost.Prices:
        """What its modules cost on this backbone."""
        return cost.Prices(self)

    def price(self, module: str, dim: int, **attributes: Value) -> int:
        """Prompt parameters of one of the space's modules at one of its dims, in one block."""
        return self.prices.params(module, dim, attributes)

    def params(self, arch: Arch) -> int:
        """Trainable prompt parameters of an arch of this space; the head is not counted."""
        return self.prices.total(arch)

    def flops(self, arch: Arch) -> int:
        """What an arch of this space adds to the FLOPs of a forward, per image."""
        return self.prices.total(arch, flops=True)

    @property
    def limits(self) -> tuple[int, int | None]:
        """The least and the most prompt parameters that the budget allows; None = no limit."""
        return self.prices.limits

    def feasible(self, arch: Arch) -> bool:
        """Whether an arch of this space meets the budget.

        Its limit on latency counts only if the space can measure (`timed`).
        """
        return self.prices.feasible(arch)

    def obeys(self, arch: Arch) -> bool:
        """Whether an arch made of this space's choices keeps to its rules."""
        return not self.rules or not nearby.violations(self, arch)

    @cached_property
    def largest(self) -> Arch:
        """Every gene at its greatest choice: what a supernet must hold. Rules may forbid it."""
        return self.decode([len(gene.choices) - 1 for gene in self.genes])

    @cached_property
    def cheapest(self) -> Arch:
        """An arch with the fewest parameters; the budget is not applied.

        Raises:
            SpaceError: if nothing obeys the rules, or finding it takes too long.
        """
        return self._extreme("cheapest")

    @cached_property
    def dearest(self) -> Arch:
        """An arch with the most parameters that rules allow; the budget is not applied.

        Raises:
            SpaceError: if nothing obeys the rules, or finding it takes too long.
        """
        return self._extreme("dearest")

    def _extreme(self, only: str) -> Arch:
        try:
            return self.prices.sought(only)
        except UncountableError:
            raise self.tangled(f"there are too many cases to find the {only}") from None

    def tangled(self, message: str) -> SpaceError:
        """The error of what takes too long to count, at the rules or else the modules."""
        fix = "fewer rules, or rules of one module each" if self.rules else "fewer dims or values"
        return self.refused("rules" if self.rules else "modules", f"{message}: declare {fix}")

    def count(self, params: Amount | int | str | None = None) -> int:
        """Number of distinct architectures with at most `params` prompt parameters, exactly.

        Without argument, under the declared budget; `0.64M` and shares are understood, too.

        Raises:
            SpaceError: if they cannot be counted exactly; says why.
        """
        if params is None or type(params) is int:
            return self.exact.count(params)
        try:
            amount = params_amount(params)
        except ValueError as e:
            raise self.refused("", f"count: {e}") from None
        return self.exact.count(self.prices.amount(amount, up=False))

    # --- drawing -----------------------------------------------------------------------------

    @cached_property
    def exact(self) -> draw.Exact:
        """Counts feasible architectures and draws from them uniformly."""
        return draw.Exact(self)

    @cached_property
    def paper(self) -> Paper:
        """Draws as NOAH does."""
        return Paper(self)

    def draw(self, rng: np.random.Generator) -> Arch:
        """One arch of the paper prior, budget apart: each gene uniform, again until rules hold.

        Where less than a tenth of such draws keep to the rules, the draw is uniform over archs.
        """
        return self.paper.draw(rng)

    def sample(
        self, rng: np.random.Generator, n: int = 1, prior: Literal["exact", "paper"] = "exact"
    ) -> list[Arch]:
        """`n` independent draws of architectures that meet the budget.

        `prior="exact"`: exactly uniform over distinct feasible architectures, by counting; where
        that is infeasible (`space.exact.reason`), by rejection.
        `prior="paper"`: NOAH's draw (each depth uniform, then each dim), by rejection; the exact
        prior where none of 5000 such draws meets the budget.

        Raises:
            SpaceError: if nothing meets the budget, or fewer than one draw in 100 000 does.
        """
        if prior not in ("exact", "paper"):
            raise self.refused("", f"prior must be exact or paper, not {prior!r}")
        if prior == "paper":
            self.check_budget()
            return [self.paper.sample(rng) for _ in range(n)]
        return self.exact.sample(rng, n)

    def shrink(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """The arch with random genes lowered, a step at a time, until it meets the budget.

        Where rules or other limits are in the way, genes are changed at random as long as that
        leads nearer; if nothing does, the arch is drawn anew.

        Raises:
            SpaceError: if nothing meets the budget.
        """
        return repair.shrink(self, arch, rng)

    def check_budget(self) -> None:
        """Raise SpaceError if no architecture of the space meets its rules and budget."""
        self.prices.check()

    def neighbours(self, arch: Arch) -> list[Arch]:
        """The archs of this space one step of one gene away; the budget is not applied.

        Raises:
            ArchError: if the arch is not in the space.
        """
        return nearby.neighbours(self, arch)

    def distance(self, first: Arch, second: Arch) -> int:
        """Steps between the dims of each block, and attributes that differ, summed; a metric.

        Raises:
            ArchError: if an arch is not in the space.
        """
        return nearby.distance(self, first, second)

    def enumerate(self) -> Iterator[Arch]:
        """Every distinct architecture that obeys the rules once, budget apart. For small spaces."""
        seen: set[Arch] = set()
        for index in np.ndindex(*(len(gene.choices) for gene in self.genes)):
            arch = self.decode([int(i) for i in index])
            if arch not in seen and not nearby.violations(self, arch):
                seen.add(arch)
                yield arch
