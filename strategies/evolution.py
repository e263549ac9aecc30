"""Evolution: NOAH's evolutionary search, with operators that reach every dim of every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from noahnas.space import Arch, Space
from noahnas.strategies.breeding import cross, depth_mutant, module_cross, mutant
from noahnas.strategy import Proposal, Strategy, Trial


class Evolution(Strategy):
    """Generations of mutants, crossovers and fresh draws of the best architectures so far.

    The first `population` archs are draws of the paper prior. In each later generation the `top`
    best of all so far are parents: of `mutants` children by mutation (each depth, and whatever else
    a whole module shares, drawn anew with probability `s`, each other gene with `m`) and of
    `crossovers`, which take each block, and each gene of a whole module, from one of two parents;
    the rest are fresh draws. A child that breaks a rule or the budget is drawn again.

    `operators=paper` breeds as NOAH's code does: mutation draws depths alone anew, crossover swaps
    whole modules; most of the space is then reached by fresh draws only.

    `ageing=true` is regularised evolution: there are no generations; each parent is the best of
    `top` archs drawn from the `population` youngest, so that a lucky score dies out.

    Not for a handful of evaluations: before the first generation ends it is random search.

    Source: NOAH, arXiv:2206.04673; ageing: Real et al., arXiv:1802.01548.

    Raises:
        ValueError: if a number is out of range.
    """

    summary = "mutation and crossover of the best archs so far (NOAH's search)"

    def __init__(
        self,
        space: Space,
        seed: int,
        population: int = 50,
        top: int = 10,
        mutants: int = 25,
        crossovers: int = 25,
        m: float = 0.2,
        s: float = 0.4,
        operators: Literal["blocks", "paper"] = "blocks",
        ageing: bool = False,
    ) -> None:
        super().__init__(space, seed)
        if population < 1 or top < 1 or min(mutants, crossovers) < 0:
            raise ValueError("population and top are at least 1, mutants and crossovers at least 0")
        if mutants + crossovers > population:
            raise ValueError(f"mutants + crossovers exceed the population of {population}")
        if not (0 <= m <= 1 and 0 <= s <= 1):
            raise ValueError("m and s are probabilities, in [0, 1]")
        self.population, self.top = population, top
        self.mutants, self.crossovers = mutants, crossovers
        self.m, self.s = m, s
        self.operators, self.ageing = operators, ageing
        self._best: list[Trial] = []  # of complete generations, the first `top`
        self._ranked = 0  # trials of those generations

    def tell(self, trials: Sequence[Trial]) -> None:
        """Rank each generation once, when it is complete."""
        super().tell(trials)
        done = len(self.history) // self.population * self.population
        if done > self._ranked:
            known = [*self._best, *self.history[self._ranked : done]]  # of equals the earlier first
            self._best = sorted(known, key=lambda t: t.result.rank, reverse=True)[: self.top]
            self._ranked = done

    def ask(self, n: int) -> list[Proposal]:
        """The next `n` individuals; without ageing never beyond the end of a generation."""
        rng = self.rng()
        if not self.ageing or len(self.history) < self.population:
            n = min(n, self.population - len(self.history) % self.population)
        pool = self._pool()

        def child(position: int) -> Arch:
            slot = position % self.population
            if pool and slot < self.mutants:
                return self._mutant(self._parent(pool, rng), rng)
            if pool and slot < self.mutants + self.crossovers:
                return self._cross(self._parent(pool, rng), self._parent(pool, rng), rng)
            return self.space.draw(rng)

        # Where no child is new, or few draws meet the budget, an exact draw keeps the search going.
        return self.fresh(child, n) or self.fresh(lambda _: self.space.sample(rng)[0], n)

    def _pool(self) -> list[Trial]:
        """The trials from which parents are taken; none before the first generation is complete."""
        if self.ageing:
            return self.history[-self.population :] if self._ranked else []
        return self._best

    def _parent(self, pool: list[Trial], rng: np.random.Generator) -> Arch:
        if not self.ageing:
            return pool[rng.integers(len(pool))].arch
        drawn = rng.choice(len(pool), size=min(self.top, len(pool)), replace=False).tolist()
        best: Trial = max((pool[i] for i in drawn), key=lambda trial: trial.result.rank)
        return best.arch

    def _mutant(self, arch: Arch, rng: np.random.Generator) -> Arch:
        if self.operators == "paper":
            return depth_mutant(self.space, arch, rng, self.s)
        return mutant(self.space, arch, rng, self.m, self.s)

    def _cross(self, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
        operator = module_cross if self.operators == "paper" else cross
        return operator(self.space, first, second, rng)
