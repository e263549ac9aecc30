"""Training policies: which architecture the supernet is trained on at each step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from noahnas.errors import NoahnasError, unknown
from noahnas.space import Arch, Space

Draw = Callable[[np.random.Generator, int, int], Arch]  # generator, step, number of steps

WARM_SHARE = 0.25  # of the steps, in which `warm` trains the largest arch alone
WARM_EVERY = 3  # after that, the largest arch comes back every so many steps


def paper(space: Space) -> Draw:
    """One arch of the paper prior a step.

    Source: NOAH, arXiv:2206.04673.
    """
    return lambda rng, _step, _steps: space.draw(rng)


def feasible(space: Space) -> Draw:
    """One arch of the paper prior that meets the budget a step."""
    return lambda rng, _step, _steps: space.sample(rng, prior="paper")[0]


def warm(space: Space) -> Draw:
    """The largest arch alone for a quarter of the steps, then paper draws and every third it.

    Shared weights learn sooner when all of them are trained together first.
    """
    largest = space.largest

    def draw(rng: np.random.Generator, step: int, steps: int) -> Arch:
        if step < WARM_SHARE * steps or step % WARM_EVERY == 0:
            return largest
        return space.draw(rng)

    return draw


POLICIES: dict[str, Callable[[Space], Draw]] = {"paper": paper, "feasible": feasible, "warm": warm}


def policy(name: str, space: Space) -> Draw:
    """A policy by name, for a space.

    Raises:
        NoahnasError: if there is none of that name.
    """
    if name not in POLICIES:
        raise NoahnasError(unknown("policy", name, POLICIES))
    return POLICIES[name](space)
