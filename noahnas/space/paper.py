"""The paper prior: how NOAH draws, each depth uniform, then each dim."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from noahnas.space.arch import Arch
from noahnas.space.batch import Batch
from noahnas.space.work import LOOK_TRIES, ROW_WORK

if TYPE_CHECKING:
    from noahnas.space.space import Space

PASS_TRIES = 5000  # draws, none of which meets the budget, after which draws are exact
RULE_TRIES = 500  # draws from which one sees how many keep to the rules
MAX_TRIES = 100_000  # draws that may miss the budget
MOST_ROWS = 1024  # that are looked at in one go where draws are made one after the other
MANY_PRICES, PRICE_STEPS = 5000, 250  # combinations of dims and attributes; what one price takes


class Paper:
    """Draws of a space's paper prior.

    Where less than a tenth of such draws keep to the rules, a draw is uniform over architectures.

    Args:
        space: bound to its backbone.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        rng = np.random.default_rng(0)
        seen = self._vectors(rng, self.rows(RULE_TRIES)) if space.rules else None
        self.obeys = seen is None or bool(10 * seen.obeys.sum() >= seen.n)

    def _vectors(self, rng: np.random.Generator, n: int) -> Batch:
        """`n` draws, rules apart."""
        size = (n, len(self.space.genes))
        return Batch(self.space, rng.integers(self.space.counts, size=size))

    def rows(self, most: int) -> int:
        """How many draws may be looked at, of `most` that are wished for."""
        space = self.space
        each = 4 * len(space.parts) + len(space.rules)
        for name, part in space.parts.items():
            prices = len({dim for dims in part.choices for dim in dims})
            for classes in space.prices.told_apart(name):
                prices *= len(classes)
            each += PRICE_STEPS if prices > MANY_PRICES else 0
        return max(min(most, ROW_WORK // (space.blocks * each)), 1)

    @cached_property
    def _passes(self) -> bool:
        """Whether any of many draws meets the budget."""
        return bool(self.passing(np.random.default_rng(0), PASS_TRIES)[0])

    def draw(self, rng: np.random.Generator) -> Arch:
        """As `Space.draw`."""
        if not self.obeys:
            return self.space.exact.obeying(rng)
        if not self.space.rules:
            return self.space.decode(rng.integers(self.space.counts).tolist())
        found = self._first(rng, feasible=False)  # one in ten or more keeps to the rules
        return found or self.space.exact.obeying(rng)

    def sample(self, rng: np.random.Generator) -> Arch:
        """A draw that meets the budget; of the exact prior where hardly any draw does."""
        found = None
        if not self.obeys:
            for _ in range(self.space.exact.tries(LOOK_TRIES) if self._passes else 0):
                arch = self.space.exact.obeying(rng)
                if self.space.feasible(arch):
                    return arch
        elif self._passes:
            found = self._first(rng, feasible=True)
        return found or self.space.sample(rng)[0]

    def _first(self, rng: np.random.Generator, *, feasible: bool) -> Arch | None:
        """The first of draws one after the other that passes; `rng` is left as after that one."""
        left, n = self.rows(MAX_TRIES), 1
        while left > 0:
            before = rng.bit_generator.state
            batch = self._vectors(rng, n)
            hits = (batch.obeys & batch.feasible if feasible else batch.obeys).nonzero()[0]
            if len(hits):
                rng.bit_generator.state = before
                return self.space.decode(self._vectors(rng, int(hits[0]) + 1).vectors[-1].tolist())
            left, n = left - n, min(4 * n, MOST_ROWS)
        return None

    def passing(self, rng: np.random.Generator, n: int) -> tuple[int, int]:
        """How many draws meet the budget, of how many: `n`, or as many as may be looked at."""
        space = self.space
        if not self.obeys:
            look = space.exact.look(space.exact.free, rng, n)
            return look.passed, look.obeyed
        passed = drawn = 0
        left = self.rows(10 * n if space.rules else n)
        while drawn < n and left > 0:
            batch = self._vectors(rng, min(n, left))
            left -= batch.n
            obeying = batch.obeys.nonzero()[0][: n - drawn]
            drawn += len(obeying)
            passed += int(batch.feasible[obeying].sum())
        return passed, drawn
