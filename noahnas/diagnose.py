"""Is there anything to search? Whether the budget binds, and whether architectures differ."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

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

    largest_feasible: bool | None  # the dearest arch that rules allow; None if it is not found
    share: float  # of the paper prior that meets the budget, estimated from `draws` draws
    draws: int = DRAWS  # fewer where that would take long; with 0 the share is nan

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
    passed, drawn = space.paper.passing(np.random.default_rng([seed, DRAWS]), DRAWS)
    dearest = space.prices.found("dearest")
    largest = None if dearest is None else space.feasible(dearest)
    return Binding(largest, passed / drawn if drawn else math.nan, drawn)


@dataclass(frozen=True)
class Checked:
    """What there is to know of a space on its backbone."""

    cheapest: Arch | None  # in parameters; the budget is not applied; None if it is not found
    dearest: Arch | None
    size: int | None  # distinct archs; the budget is not applied; None if they are not counted
    feasible: int | None  # archs that meet the budget; None where they are not counted
    share: float  # of the distinct archs that meets the budget; nan if no draw tells
    reason: str | None  # why they are not counted
    draws: int | None  # from which the share is estimated; None where it is counted
    binding: Binding
    warnings: tuple[str, ...]


def check(space: Space, seed: int = 0) -> Checked:
    """Size, cost and feasible share of a bound space, and what is odd about its budget.

    What takes too long to count or to find is None; the share is then estimated by draws.

    Raises:
        SpaceError: if nothing meets the budget.
    """
    space.check_budget()
    bound = binding(space, seed)
    feasible, share, draws = _share(space, seed)
    cheapest, dearest = (space.prices.found(only) for only in ("cheapest", "dearest"))
    return Checked(
        cheapest,
        dearest,
        space.counted_size,
        feasible,
        share,
        space.exact.reason,
        draws,
        bound,
        tuple(_warnings(space, bound, share)),
    )


def _share(space: Space, seed: int) -> tuple[int | None, float, int | None]:
    """Archs that meet the budget, their share of all, and from how many draws that is estimated."""
    exact = space.exact
    if not exact.reason:
        return space.count(), space.count() / space.size, None
    source = exact.source
    if not source.total:
        return None, 0.0, 0
    look = exact.look(source, np.random.default_rng([seed, DRAWS]), DRAWS)
    if not look.obeyed:
        return None, math.nan, 0
    of_all = source.total / space.size if source.ruled else 1.0
    return None, of_all * look.passed / look.obeyed, look.obeyed


def _warnings(space: Space, bound: Binding, share: float) -> Iterator[str]:
    limits = space.budget.limits if space.budget else {}
    if limits and (bound.largest_feasible or bound.share > 0.9):
        largest = "the dearest arch meets it" if bound.largest_feasible else "most archs meet it"
        yield f"the budget hardly binds: {largest}, and the largest tends to win"
    if bound.share < HARDLY:
        yield (
            f"hardly anything of the paper prior meets the budget ({bound.share:.2%}): a supernet "
            "trained on it sees mostly what is infeasible"
        )
    if "latency" in limits and not space.latency:
        yield "the limit on latency is left out here: a search measures it"
    if math.isnan(share):
        yield "hardly any draw keeps to the rules: a search may find nothing to draw"


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
