"""Is there anything to search? Whether the budget binds, and whether architectures differ."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np

from noahnas.data import Task
from noahnas.evaluate import evaluate_batch
from noahnas.space import Arch, Space
from noahnas.supernet import Supernet

DRAWS = 2000  # of the paper prior, to estimate the share that is feasible
HARDLY = 0.005  # a share of the paper prior below which supernet and search do not meet
ARCHS = 30  # random feasible ones, to see how far their scores spread


@dataclass(frozen=True)
class Binding:
    """How much a space's budget leaves out. Where it leaves out little, the largest arch wins."""

    largest_feasible: bool  # the dearest arch that rules allow
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
    return Binding(space.feasible(space.dearest), passed / DRAWS)


@dataclass(frozen=True)
class Checked:
    """What there is to know of a space on its backbone."""

    cheapest: Arch  # in parameters; the budget is not applied
    dearest: Arch
    size: int  # distinct archs; the budget is not applied
    feasible: int | None  # archs that meet the budget; None where they are not counted
    share: float  # of the distinct archs that meets the budget; estimated where not counted
    reason: str | None  # why they are not counted
    binding: Binding
    warnings: tuple[str, ...]


def check(space: Space, seed: int = 0) -> Checked:
    """Size, cost and feasible share of a bound space, and what is odd about its budget.

    Raises:
        SpaceError: if nothing meets the budget.
    """
    space.check_budget()
    bound = binding(space, seed)
    reason = space.exact.reason
    if reason:
        feasible, share = None, _share(space, seed)
    else:
        feasible = space.count()
        share = feasible / space.size
    warnings = []
    limits = space.budget.limits if space.budget else {}
    if limits and (bound.largest_feasible or bound.share > 0.9):
        largest = "the dearest arch meets it" if bound.largest_feasible else "most archs meet it"
        warnings.append(f"the budget hardly binds: {largest}, and the largest tends to win")
    if bound.share < HARDLY:
        warnings.append(
            f"hardly anything of the paper prior meets the budget ({bound.share:.2%}): a supernet "
            "trained on it sees mostly what is infeasible"
        )
    if "latency" in limits and not space.latency:
        warnings.append("the limit on latency is left out here: a search measures it")
    return Checked(
        space.cheapest, space.dearest, space.size, feasible, share, reason, bound, tuple(warnings)
    )


def _share(space: Space, seed: int) -> float:
    """The share of uniform draws over all archs that meets the budget."""
    rng = np.random.default_rng([seed, DRAWS])
    free = replace(space, budget=None).sample(rng, DRAWS)
    return sum(space.feasible(arch) for arch in free) / DRAWS


def spread(net: Supernet, space: Space, task: Task, seed: int = 0) -> Spread:
    """Score random feasible archs (paper prior) on val under the shared weights."""
    began = time.perf_counter()
    archs = space.sample(np.random.default_rng([seed, ARCHS]), ARCHS, prior="paper")
    results = evaluate_batch(net, archs, task)
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
