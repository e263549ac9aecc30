"""Drawing architectures: exactly uniform over those that are feasible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from noahnas.space.arch import Arch
from noahnas.space.cases import Census
from noahnas.space.count import uniform_below
from noahnas.space.work import LOOK_TRIES, SAMPLE_TRIES, UncountableError

if TYPE_CHECKING:
    from noahnas.space.space import Space

MAX_TRIES = 10_000  # uniform draws in a row of which none passes
WHOLE_STEPS, DRAW_STEPS = 100, 8  # of a draw; of a module or an attribute in a block
CHOICE_STEPS = 3  # of each choice in a block, where a step on is looked at for each


@dataclass(frozen=True)
class Source:
    """What is drawn from: the architectures of a census that cost `low` to `high`."""

    census: Census
    low: int
    high: int
    total: int
    ruled: bool  # whether all of them keep to all rules

    def draw(self, rng: np.random.Generator, n: int = 1) -> list[Arch]:
        """`n` of them, exactly uniform."""
        indices = uniform_below(rng, self.total, n)
        return [Arch.trusted(self.census.unrank(i, self.low, self.high)) for i in indices]


@dataclass(frozen=True)
class Look:
    """What became of some uniform draws."""

    drawn: int
    obeyed: int  # of them keep to the rules
    passed: int  # of these meet the budget


class Exact:
    """The feasible architectures of a space: how many, and uniform draws.

    Counts are exact for rules and for limits on parameters, unless that would take too long. What
    is not counted — FLOPs, latency, rules that are too tangled — is met by rejection; `reason` says
    so, `acceptance` tells how many of the draws so far passed.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.drawn = self.passed = 0

    @cached_property
    def free(self) -> Source:
        """All architectures that keep to the rules; to as many of them as can be counted."""
        space = self.space
        if space.counted_size is None:
            census = space.relaxed
            return Source(census, 0, 0, census.count(), ruled=False)
        return Source(space.census, 0, 0, space.size, ruled=True)

    @cached_property
    def source(self) -> Source:
        """What is drawn from, as near to what is feasible as can be counted."""
        space = self.space
        counted = space.prices.counted if self.free.ruled and not self._loose else None
        if counted is None:
            return self.free
        low, high = space.limits
        top = space.params(space.dearest) if high is None else high
        return Source(space.prices.census(top), low, top, counted, ruled=True)

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
        if not self.source.ruled:
            return "the rules are too tangled to count"
        if not self._loose and self.source is self.free:
            return "the rules and prices are too tangled to count under the budget"
        beside = [n for n in ("flops", "latency") if budget and n in budget.limits]
        if beside and (beside != ["latency"] or self.space.latency):
            return f"a budget on {' and '.join(beside)} is not counted"
        return None

    @property
    def acceptance(self) -> float | None:
        """The share of draws so far that passed; None before the first."""
        return self.passed / self.drawn if self.drawn else None

    @property
    def at_most(self) -> int:
        """How many architectures `every` yields: those feasible, or more where `reason` says so."""
        return self.source.total

    def every(self) -> Iterator[Arch]:
        """Every architecture once that obeys the rules and what is counted of the budget."""
        source = self.source
        for index in range(source.total):
            arch = Arch.trusted(source.census.unrank(index, source.low, source.high))
            if source.ruled or self.space.obeys(arch):
                yield arch

    def count(self, params: int | None = None) -> int:
        """As `Space.count`."""
        space = self.space
        if params is None:
            if self.reason:
                message = f"not counted exactly: {self.reason}; draw to estimate the share"
                raise space.refused("budget", message)
            return self.source.total
        extremes = space.prices.extremes
        if extremes and params >= extremes[1]:
            return space.size
        try:
            return space.prices.census(params).count(0, params)
        except UncountableError:
            message = "not counted exactly: its rules and prices are too tangled"
            raise space.tangled(message) from None

    def tries(self, work: int = SAMPLE_TRIES) -> int:
        """How many uniform draws may be made in a row of which none passes: so long it may take."""
        space, source = self.space, self.source
        tied = source.high or source.census.rules
        each = sum(
            DRAW_STEPS * (1 + len(part.attributes))
            + (CHOICE_STEPS * max(map(len, part.choices)) if tied else 0)
            for part in space.parts.values()
        )
        return max(
            min(work // (WHOLE_STEPS + space.blocks * (each + len(space.rules))), MAX_TRIES), 1
        )

    def look(self, source: Source, rng: np.random.Generator, n: int) -> Look:
        """What becomes of `n` uniform draws, or as many as may be tried."""
        obeyed = passed = 0
        drawn = min(n, self.tries(LOOK_TRIES)) if source.total else 0
        for _ in range(drawn):
            arch = source.draw(rng)[0]
            if source.ruled or self.space.obeys(arch):
                obeyed += 1
                passed += self.space.feasible(arch)
        return Look(drawn, obeyed, passed)

    def sample(self, rng: np.random.Generator, n: int) -> list[Arch]:
        """As `Space.sample`."""
        space = self.space
        space.check_budget()
        if not self.source.total:
            raise space.refused("budget.params", "no architecture meets the budget")
        if not self.reason:
            return self.source.draw(rng, n)
        return [self._passing(rng) for _ in range(n)]

    def _passing(self, rng: np.random.Generator) -> Arch:
        """A draw that keeps to the rules and meets the budget, by rejection."""
        space, budget = self.space, self.space.budget
        for _ in range(self.tries()):
            arch = self.source.draw(rng)[0]
            passes = (self.source.ruled or space.obeys(arch)) and space.feasible(arch)
            self.drawn, self.passed = self.drawn + 1, self.passed + passes
            if passes:
                return arch
        if self.source.ruled:
            message = f"none of {self.tries()} uniform draws meets the budget: raise it"
            raise space.refused("budget", message)
        message = f"none of {self.tries()} uniform draws keeps to the rules"
        raise space.tangled(f"{message} and meets the budget" if budget else message)

    def obeying(self, rng: np.random.Generator) -> Arch:
        """A uniform draw that keeps to the rules, budget apart."""
        if not self.free.total:
            raise self.space.refused("rules", "no architecture obeys all rules")
        for _ in range(self.tries()):
            arch = self.free.draw(rng)[0]
            if self.free.ruled or self.space.obeys(arch):
                return arch
        raise self.space.tangled(f"none of {self.tries()} uniform draws keeps to the rules")
