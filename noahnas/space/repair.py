"""Bringing an architecture back within the rules and the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from noahnas.space.arch import Arch
from noahnas.space.nearby import violations

if TYPE_CHECKING:
    from noahnas.space.space import Space

REPAIRS = 300  # random changes of one gene that `shrink` tries where rules are in the way


def shrink(space: Space, arch: Arch, rng: np.random.Generator) -> Arch:
    """As `Space.shrink`."""
    space.check_budget()
    vector = space.vector(arch)
    while not space.feasible(arch):
        active = space.active(vector)
        high = [i for i, index in enumerate(vector) if index and active[i]]
        if not high:
            break
        vector[high[rng.integers(len(high))]] -= 1
        arch = space.decode(vector)
    if not violations(space, arch) and space.feasible(arch):
        return arch
    return _repaired(space, vector, rng) or space.sample(rng)[0]


def _repaired(space: Space, vector: list[int], rng: np.random.Generator) -> Arch | None:
    """Change random genes as long as fewer rules are broken and the budget is less exceeded."""
    counts = [len(gene.choices) for gene in space.genes]
    free = [i for i, count in enumerate(counts) if count > 1]
    if not free:
        return None
    arch = space.decode(vector)
    badness = _badness(space, arch)
    for _ in range(REPAIRS):
        if badness == (0, 0.0):
            return arch
        changed = list(vector)
        gene = free[rng.integers(len(free))]
        changed[gene] = int(rng.integers(counts[gene]))
        other = space.decode(changed)
        after = _badness(space, other)
        if after <= badness:
            vector, arch, badness = changed, other, after
    return arch if badness == (0, 0.0) else None


def _badness(space: Space, arch: Arch) -> tuple[int, float]:
    """How many places break a rule, and how far the arch is out of the budget."""
    low, high = space.limits
    params = space.params(arch)
    excess = max(low - params, params - (params if high is None else high), 0)
    rest = 0.5 if not excess and not space.feasible(arch) else 0.0
    return violations(space, arch), excess + rest
