"""Drawing architectures: exactly uniform, as NOAH draws, and back within the limits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from noahnas.errors import SpaceError
from noahnas.space.arch import Arch
from noahnas.space.cases import Census
from noahnas.space.count import uniform_below
from noahnas.space.nearby import violations
from noahnas.space.work import UncountableError

if TYPE_CHECKING:
    from noahnas.space.space import Space

MAX_REJECTIONS = 100_000  # of paper draws
MAX_MISSES = 10_000  # uniform draws in a row that miss the budget where it is not counted
PAPER_TRIES = 5000  # paper draws, none of which meets the budget, after which draws are exact
RULE_TRIES = 500  # paper draws from which one sees how many keep to the rules
REPAIRS = 300  # random changes of one gene that `shrink` tries where rules are in the way


class Exact:
    """The feasible architectures of a space: how many, and uniform draws.

    Counts are exact for rules and for limits on parameters, unless that would take too long. What
    is not counted — FLOPs, latency — is met by rejection; `reason` says so, `acceptance` tells how
    many of the draws so far passed.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.drawn = self.passed = 0

    @cached_property
    def _window(self) -> tuple[Census, int, int, int]:
        """A census, the window of costs in it, and how many architectures that holds."""
        space = self.space
        free = (space._free, 0, 0, space.size)
        counted = None if self._loose else space.prices.counted
        if counted is None:
            return free
        low, high = space.limits
        top = space.params(space.dearest) if high is None else high
        return space.prices.census, low, top, counted

    @cached_property
    def _loose(self) -> bool:
        """Whether the budget limits no parameters of any architecture."""
        low, high = self.space.limits
        if low == 0 and high is None:
            return True
        extremes = self.space.prices.extremes
        if extremes is None:
            return False
        return low <= extremes[0] and (high is None or extremes[1] <= high)

    @cached_property
    def reason(self) -> str | None:
        """Why draws are made by rejection; None if they are not."""
        budget = self.space.budget
        if not self._loose and self._window[0] is self.space._free:
            return "the rules and prices are too tangled to count under the budget"
        beside = [n for n in ("flops", "latency") if budget and n in budget.limits]
        if beside and (beside != ["latency"] or self.space.latency):
            return f"a budget on {' and '.join(beside)} is not counted"
        return None

    @property
    def acceptance(self) -> float | None:
        """The share of draws so far that met the budget; None before the first."""
        return self.passed / self.drawn if self.drawn else None

    @property
    def at_most(self) -> int:
        """How many architectures `every` yields: those feasible, or more where `reason` says so."""
        return self._window[3]

    def every(self) -> Iterator[Arch]:
        """Every architecture once that obeys the rules and what is counted of the budget."""
        census, low, high, total = self._window
        for index in range(total):
            yield Arch.trusted(census.unrank(index, low, high))

    def count(self, params: int | None = None) -> int:
        """As `Space.count`."""
        space = self.space
        if params is None:
            if self.reason:
                message = f"not counted exactly: {self.reason}; draw to estimate the share"
                raise space.refused("budget", message)
            return self._window[3]
        extremes = space.prices.extremes
        if extremes and params >= extremes[1]:
            return space.size
        try:
            return space.prices.census.count(0, params)
        except UncountableError:
            message = "not counted exactly: its rules and prices are too tangled"
            raise space.tangled(message) from None

    def sample(self, rng: np.random.Generator, n: int) -> list[Arch]:
        """As `Space.sample`."""
        space = self.space
        space.check_budget()
        census, low, high, total = self._window
        if not total:
            raise space.refused("budget.params", "no architecture meets the budget")
        if not self.reason:
            indices = uniform_below(rng, total, n)
            return [Arch.trusted(census.unrank(index, low, high)) for index in indices]
        found: list[Arch] = []
        misses = 0
        while len(found) < n:
            arch = Arch.trusted(census.unrank(uniform_below(rng, total, 1)[0], low, high))
            passes = space.feasible(arch)
            self.drawn, self.passed = self.drawn + 1, self.passed + passes
            misses = 0 if passes else misses + 1
            if passes:
                found.append(arch)
            elif misses >= MAX_MISSES:
                message = f"none of {misses} uniform draws meets the budget: raise it"
                raise space.refused("budget", message)
        return found


def paper(space: Space, rng: np.random.Generator) -> Arch:
    """As `Space.draw`."""
    if space.rules and not space.paper_obeys:
        census = space._free
        if census.empty:
            raise space.refused("rules", "no architecture obeys all rules")
        return Arch.trusted(census.unrank(uniform_below(rng, space.size, 1)[0]))
    while True:  # with rules, one in ten or more passes
        arch = space.decode(rng.integers(space.counts).tolist())
        if space.obeys(arch):
            return arch


def paper_obeys(space: Space) -> bool:
    """Whether a tenth of paper draws or more keep to the rules."""
    rng = np.random.default_rng(0)
    vectors = (rng.integers(space.counts).tolist() for _ in range(RULE_TRIES))
    return sum(space.obeys(space.decode(vector)) for vector in vectors) >= RULE_TRIES / 10


def paper_passes(space: Space) -> bool:
    """Whether any of many paper draws meets the budget."""
    rng = np.random.default_rng(0)
    return any(space.feasible(space.draw(rng)) for _ in range(PAPER_TRIES))


def feasible_paper(space: Space, rng: np.random.Generator) -> Arch:
    """A draw of the paper prior that meets the budget."""
    if not space.paper_passes:
        return space.sample(rng)[0]
    for _ in range(MAX_REJECTIONS):
        arch = space.draw(rng)
        if space.feasible(arch):
            return arch
    raise _tight(space)


def _tight(space: Space) -> SpaceError:
    message = f"no paper draw in {MAX_REJECTIONS} meets the budget: raise it"
    return space.refused("budget", message)


def shrink(space: Space, arch: Arch, rng: np.random.Generator) -> Arch:
    """As `Space.shrink`."""
    space.check_budget()
    vector = space.vector(arch)
    while not space.feasible(arch):
        active = space.active(vector)
        high = [i for i, index in enumerate(vector) if index and active[i]]
        if not high:
            break
        vector[high[rng.integers(len(high))]] -= 1
        arch = space.decode(vector)
    if not violations(space, arch) and space.feasible(arch):
        return arch
    return _repaired(space, vector, rng) or space.sample(rng)[0]


def _repaired(space: Space, vector: list[int], rng: np.random.Generator) -> Arch | None:
    """Change random genes as long as fewer rules are broken and the budget is less exceeded."""
    counts = [len(gene.choices) for gene in space.genes]
    free = [i for i, count in enumerate(counts) if count > 1]
    if not free:
        return None
    arch = space.decode(vector)
    badness = _badness(space, arch)
    for _ in range(REPAIRS):
        if badness == (0, 0.0):
            return arch
        changed = list(vector)
        gene = free[rng.integers(len(free))]
        changed[gene] = int(rng.integers(counts[gene]))
        other = space.decode(changed)
        after = _badness(space, other)
        if after <= badness:
            vector, arch, badness = changed, other, after
    return arch if badness == (0, 0.0) else None


def _badness(space: Space, arch: Arch) -> tuple[int, float]:
    """How many places break a rule, and how far the arch is out of the budget."""
    low, high = space.limits
    params = space.params(arch)
    excess = max(low - params, params - (params if high is None else high), 0)
    rest = 0.5 if not excess and not space.feasible(arch) else 0.0
    return violations(space, arch), excess + rest
