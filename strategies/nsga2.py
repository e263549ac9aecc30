"""NSGA-II: accuracy against a cost, the whole front at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from noahnas.errors import StrategyError
from noahnas.front import layers
from noahnas.space import Arch, Space
from noahnas.strategies.breeding import cross, mutant
from noahnas.strategy import Multiobjective, Proposal, Trial

Point = tuple[tuple[float, ...], float]  # rank, which is to be large, and cost


class NSGA2(Multiobjective):
    """Breeds towards the front of accuracy and a cost: params, flops or latency.

    Parents are the `population` best of all complete generations: front by front, within the last
    one those with most room around them (crowding distance). Each child has parents that won a
    tournament of two; it is their crossover with probability `crossover`, and then mutates, each
    gene with probability `m`, or 1/genes if that is 0. The first generation is drawn from the
    paper prior. A population is half of evolution's: of a few hundred trials, more and smaller
    generations find more accurate archs than fewer and larger ones do (docs/results.md).

    Params are those of the prompt modules, FLOPs what an arch adds to a forward of one image,
    latency the milliseconds of such a forward, measured once for each arch.

    The result is the front, with its hypervolume; the arch that is retrained is the most accurate
    of those within the budget. Not for one number: where only accuracy counts, evolution spends no
    trials on small archs.

    Source: Deb et al., IEEE TEC 6(2), 2002.

    Raises:
        ValueError: if a number is out of range.
    """

    summary = "the front of accuracy against params, flops or latency (NSGA-II)"

    def __init__(
        self,
        space: Space,
        seed: int,
        against: Literal["params", "flops", "latency"] = "params",
        population: int = 25,
        crossover: float = 0.9,
        m: float = 0.0,
    ) -> None:
        super().__init__(space, seed)
        if population < 2:
            raise ValueError("population is at least 2")
        if not (0 <= crossover <= 1 and 0 <= m <= 1):
            raise ValueError("crossover and m are probabilities, in [0, 1]")
        self.axis = {"params": "params", "flops": "FLOPs added", "latency": "ms per image"}[against]
        self.against, self.population, self.crossover = against, population, crossover
        free = sum(len(gene.choices) > 1 for gene in space.genes)
        self.m = m or 1 / max(free, 1)

    def cost(self, arch: Arch) -> float:
        """Parameters, FLOPs that it adds, or milliseconds."""
        if self.against == "params":
            return self.space.params(arch)
        if self.against == "flops":
            return self.space.flops(arch)
        if self.space.latency is None:
            raise StrategyError("nsga2: against=latency needs a supernet to measure it on")
        return self.space.latency(arch)

    def limit(self) -> float | None:
        """The most parameters that the budget allows; others are measured by the dearest trial."""
        if self.against != "params":
            return None
        high = self.space.limits[1]
        dearest = self.space.params(self.space.dearest)
        return dearest if high is None else min(high, dearest)

    def ask(self, n: int) -> list[Proposal]:
        """The next `n` of the current generation; never beyond its end."""
        rng = self.rng()
        done = len(self.history) // self.population * self.population
        pool = chosen(self.history[:done], self.population)

        def parent() -> Arch:
            pair = rng.integers(len(pool), size=2)
            return pool[int(min(pair))].arch  # the pool is in order, the better first

        def child(_position: int) -> Arch:
            if not pool:
                return self.space.draw(rng)
            first = parent()
            if rng.random() < self.crossover:
                first = cross(self.space, first, parent(), rng)
            return mutant(self.space, first, rng, self.m, self.m)

        n = min(n, self.population - len(self.history) % self.population)
        return self.fresh(child, n) or self.fresh(lambda _: self.space.sample(rng)[0], n)


def chosen(trials: Sequence[Trial], size: int) -> list[Trial]:
    """The `size` best trials, in order: by front, within a front by crowding distance."""
    points: list[Point] = [(trial.result.rank, trial.cost or 0.0) for trial in trials]
    found: list[int] = []
    for front in layers(points):
        room = crowding([(points[i][0][0], points[i][1]) for i in front])
        found += [front[i] for i in np.argsort([-r for r in room], kind="stable")]
        if len(found) >= size:
            break
    return [trials[i] for i in found[:size]]


def crowding(front: Sequence[tuple[float, float]]) -> list[float]:
    """For each point of a front, by rising cost, how far its neighbours lie apart; ends: inf."""
    room = [0.0] * len(front)
    room[0] = room[-1] = math.inf
    for axis in (0, 1):
        spread = abs(front[-1][axis] - front[0][axis]) or 1.0
        for i in range(1, len(front) - 1):
            room[i] += abs(front[i + 1][axis] - front[i - 1][axis]) / spread
    return room
