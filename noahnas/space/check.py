"""What there is to know of a space on its backbone, and whether its budget binds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from noahnas.space.arch import Arch
from noahnas.space.space import Space

DRAWS = 2000  # of the paper prior, to estimate the share that is feasible
HARDLY = 0.005  # a share of the paper prior below which supernet and search do not meet


@dataclass(frozen=True)
class Binding:
    """How much a space's budget leaves out. Where it leaves out little, the largest arch wins."""

    largest_feasible: bool | None  # the dearest arch that rules allow; None if it is not found
    share: float | None  # of the paper prior that meets the budget; None if no draw tells
    draws: int = DRAWS  # from which the share is estimated; fewer where that would take long

    @property
    def binds(self) -> bool:
        """The largest arch is infeasible, and at most a quarter of the paper prior passes."""
        return not self.largest_feasible and self.share is not None and self.share <= 0.25


def binding(space: Space, seed: int = 0) -> Binding:
    """Whether the budget of a bound space binds."""
    passed, drawn = space.paper.passing(np.random.default_rng([seed, DRAWS]), DRAWS)
    dearest = space.prices.found("dearest")
    largest = None if dearest is None else space.feasible(dearest)
    return Binding(largest, passed / drawn if drawn else None, drawn)


@dataclass(frozen=True)
class Checked:
    """What there is to know of a space on its backbone."""

    cheapest: Arch | None  # in parameters; the budget is not applied; None if it is not found
    dearest: Arch | None
    size: int | None  # distinct archs; the budget is not applied; None if they are not counted
    feasible: int | None  # archs that meet the budget; None where they are not counted
    share: float | None  # of the distinct archs that meets the budget; None if no draw tells
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


def _share(space: Space, seed: int) -> tuple[int | None, float | None, int | None]:
    """Archs that meet the budget, their share of all, and from how many draws that is estimated."""
    exact = space.exact
    if not exact.reason:
        return space.count(), space.count() / space.size, None
    source = exact.source
    if not source.total:
        return None, 0.0, 0
    look = exact.look(source, np.random.default_rng([seed, DRAWS]), DRAWS)
    if not look.obeyed:
        return None, None, 0
    of_all = source.total / space.size if source.ruled else 1.0
    return None, of_all * look.passed / look.obeyed, look.obeyed


def _warnings(space: Space, bound: Binding, share: float | None) -> Iterator[str]:
    limits = space.budget.limits if space.budget else {}
    if limits and (bound.largest_feasible or (bound.share or 0) > 0.9):
        largest = "the dearest arch meets it" if bound.largest_feasible else "most archs meet it"
        yield f"the budget hardly binds: {largest}, and the largest tends to win"
    if bound.share is not None and bound.share < HARDLY:
        yield (
            f"hardly anything of the paper prior meets the budget ({bound.share:.2%}): a supernet "
            "trained on it sees mostly what is infeasible"
        )
    if "latency" in limits and not space.latency:
        yield "the limit on latency is left out here: a search measures it"
    if share is None:
        yield "hardly any draw keeps to the rules: a search may find nothing to draw"
