"""Evolution: NOAH's evolutionary search, with operators that reach every dim of every block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noahnas.space import Arch, Space
from noahnas.strategy import Proposal, Strategy


class Evolution(Strategy):
    """Generations of mutants, crossovers and fresh draws of the best architectures so far.

    The first `population` archs are draws of the paper prior. In each later generation the `top`
    best of all so far are parents: `mutants` children by mutation (each depth, and whatever else a
    whole module shares, drawn anew with probability `s`, each other gene with `m`), `crossovers` by
    taking each block, and each gene of a whole module, from one of two parents, and the rest fresh
    draws. A child that breaks a rule is drawn again. NOAH itself mutates depths only and swaps
    whole modules.

    Not for a handful of evaluations: before the first generation ends it is random search.

    Source: NOAH, arXiv:2206.04673; Real et al., arXiv:1802.01548.

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

    def ask(self, n: int) -> list[Proposal]:
        """The next `n` individuals of the current generation; never beyond its end."""
        rng = self.rng()
        born = len(self.history) % self.population
        parents = self._parents()

        def child(position: int) -> Arch:
            slot = position % self.population
            if parents and slot < self.mutants:
                return self._mutant(parents[rng.integers(len(parents))], rng)
            if parents and slot < self.mutants + self.crossovers:
                pair = rng.integers(len(parents), size=2)
                return self._cross(parents[pair[0]], parents[pair[1]], rng)
            return self.space.draw(rng)

        # Where no child is new, or few draws meet the budget, an exact draw keeps the search going.
        n = min(n, self.population - born)
        return self.fresh(child, n) or self.fresh(lambda _: self.space.sample(rng)[0], n)

    def _parents(self) -> list[Arch]:
        """The best archs of all generations that are complete."""
        done = self.history[: len(self.history) // self.population * self.population]
        best = sorted(done, key=lambda trial: trial.result.rank, reverse=True)
        return [trial.arch for trial in best[: self.top]]

    def _filled(self, arch: Arch, rng: np.random.Generator) -> NDArray[np.int64]:
        """The arch's genes, those that are inactive drawn anew: a deeper child needs their dims."""
        vector = self.space.encode(arch)
        active = np.array(self.space.active(vector), dtype=bool)
        return np.where(active, vector, rng.integers(self._counts()))

    def _counts(self) -> list[int]:
        return [len(gene.choices) for gene in self.space.genes]

    def _mutant(self, arch: Arch, rng: np.random.Generator) -> Arch:
        rates = [self.s if gene.block is None else self.m for gene in self.space.genes]
        hit = rng.random(len(rates)) < rates
        vector = np.where(hit, rng.integers(self._counts()), self._filled(arch, rng))
        return self.space.decode(vector.tolist())

    def _cross(self, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
        genes = self.space.genes
        of_block = rng.random(self.space.blocks) < 0.5
        of_depth = rng.random(len(genes)) < 0.5
        mine = [of_depth[i] if g.block is None else of_block[g.block] for i, g in enumerate(genes)]
        vector = np.where(mine, self._filled(first, rng), self._filled(second, rng))
        return self.space.decode(vector.tolist())
