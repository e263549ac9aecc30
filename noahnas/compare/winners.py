"""What winners look like: where each module is used and how wide, and how far winners agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noahnas.space import Arch, Space

DRAWS = 300  # pairs of random feasible archs, as the measure of distances


def usage(space: Space, archs: Sequence[Arch]) -> dict[str, dict[str, list[float]]]:
    """For each module and block the share of archs that use it, and its mean dim where they do.

    Returns:
        module → {"share": [...], "dim": [...], "most": [...]}, a value a block; `most` is the
        largest dim of the space there. A dim is 0 where no arch uses the module.
    """
    found = {}
    for module in space.largest.modules:
        dims = np.array([a.dims(module) or (0,) * space.blocks for a in archs])  # (archs, blocks)
        used = (dims > 0).sum(axis=0)  # (blocks)
        found[module] = {
            "share": (used / len(archs)).tolist(),
            "dim": (dims.sum(axis=0) / np.maximum(used, 1)).tolist(),
            "most": [float(dim) for dim in space.largest.dims(module)],
        }
    return found


def random_distance(space: Space) -> float:
    """The mean distance of two random feasible archs (paper prior), in steps."""
    archs = space.sample(np.random.default_rng([0, DRAWS]), 2 * DRAWS, prior="paper")
    pairs = zip(archs[::2], archs[1::2], strict=True)
    return float(np.mean([space.distance(a, b) for a, b in pairs]))


def agreement(
    space: Space, winners: Mapping[str, Sequence[Arch]], random: float
) -> dict[str, Any] | None:
    """How far winners of different seeds on one supernet lie apart, averaged over supernets.

    Args:
        space: theirs, bound.
        winners: of each supernet, one a seed.
        random: what `random_distance` gives.

    Returns:
        The mean distance in steps, and relative to `random` (1 = as far apart as chance, 0 = all
        the same); None with a single seed.
    """
    means = [
        np.mean([space.distance(a, b) for a, b in itertools.combinations(archs, 2)])
        for archs in winners.values()
        if len(archs) > 1
    ]
    if not means:
        return None
    steps = float(np.mean(means))
    same = [len({arch.digest for arch in archs}) for archs in winners.values()]
    return {
        "steps": steps,
        "relative": steps / random if random else None,
        "distinct": sum(same),
        "of": sum(map(len, winners.values())),
    }
