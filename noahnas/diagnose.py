"""Is there anything to search? Whether the budget binds, and whether architectures differ."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np

from noahnas.data import Task
from noahnas.evaluate import evaluate
from noahnas.space import Space
from noahnas.supernet import Supernet

DRAWS = 2000  # of the paper prior, to estimate the share that is feasible
ARCHS = 30  # random feasible ones, to see how far their scores spread


@dataclass(frozen=True)
class Binding:
    """How much a space's budget leaves out. Where it leaves out little, the largest arch wins."""

    largest_feasible: bool
    share: float  # of the paper prior that meets the budget, estimated from `DRAWS` draws

    @property
    def binds(self) -> bool:
        """The largest arch is infeasible, and at most a quarter of the paper prior passes."""
        return not self.largest_feasible and self.share <= 0.25


@dataclass(frozen=True)
class Spread:
    """How far the supernet's val accuracies of random feasible archs lie apart.

    Where `sd` is below `error`, a search on this split ranks noise.
    """

    mean: float
    sd: float  # over `archs` architectures
    error: float  # binomial standard error of an accuracy of `mean` on this val split
    archs: int
    passes: int
    seconds: float


def binding(space: Space, seed: int = 0) -> Binding:
    """Whether the budget of a bound space binds."""
    rng = np.random.default_rng([seed, DRAWS])
    passed = sum(space.feasible(space.draw(rng)) for _ in range(DRAWS))
    return Binding(space.feasible(space.largest), passed / DRAWS)


def spread(net: Supernet, space: Space, task: Task, seed: int = 0) -> Spread:
    """Score random feasible archs (paper prior) on val under the shared weights."""
    began = time.perf_counter()
    archs = space.sample(np.random.default_rng([seed, ARCHS]), ARCHS, prior="paper")
    results = [evaluate(net, arch, task) for arch in archs]
    accuracies = [result.accuracy for result in results]
    mean = statistics.fmean(accuracies)
    return Spread(
        mean=mean,
        sd=statistics.stdev(accuracies),
        error=math.sqrt(mean * (1 - mean) / len(task.data.val)),
        archs=ARCHS,
        passes=sum(result.passes for result in results),
        seconds=time.perf_counter() - began,
    )
