"""A space relaxed: each gene a distribution over its choices, differentiable and decodable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noahnas.space import Arch, Space

Weights = Mapping[str, Mapping[int, Tensor]]  # per gene: the probability of each of its choices
PRICES = (0.0, *np.geomspace(1e-3, 1e3, 61).tolist())  # of a decoding, nats per whole budget


def mixture(space: Space, weights: Weights) -> dict[str, list[dict[int, Tensor]]]:
    """Each module's dim in each block as probabilities: its depth reaches the block, and its dim.

    With P = P(depth > block): w_k becomes P·w_k for k > 0, and w_0 becomes 1 − P·(1 − w_0).
    """
    found: dict[str, list[dict[int, Tensor]]] = {}
    for name, where in space.slices.items():
        depths, *dims = (weights[gene.name] for gene in space.genes[where])
        one = next(iter(depths.values())).new_ones(())
        found[name] = []
        for block, choices in enumerate(dims):
            reached = torch.stack([w for depth, w in depths.items() if depth > block]).sum()
            there = {dim: reached * w for dim, w in choices.items() if dim}
            absent = one - torch.stack([*there.values(), one * 0]).sum()
            found[name].append({0: absent, **there})
        found[name] += [{0: one}] * (space.blocks - len(dims))
    return found


def expected_params(space: Space, weights: Weights) -> Tensor:
    """Mean number of prompt parameters when each gene is drawn by itself; differentiable."""
    total = [
        w * space.price(name, dim)
        for name, blocks in mixture(space, weights).items()
        for block in blocks
        for dim, w in block.items()
        if dim
    ]
    return torch.stack(total).sum()


def decode(space: Space, probabilities: Sequence[NDArray[np.float64]]) -> list[Arch]:
    """Feasible archs, the most probable first: for each price of a parameter, the best arch.

    The best arch at a price maximises log-probability minus price × parameters, exactly: over each
    module's depth, and over each dim within it.
    """
    scale = max(space.budget.params if space.budget else space.params(space.largest), 1)
    logs = [np.log(np.maximum(p, 1e-12)) for p in probabilities]
    found: dict[Arch, float] = {}
    for price in PRICES:
        vector: list[int] = []
        for name, where in space.slices.items():
            depth_logs, *dim_logs = logs[where]
            prices = np.array([space.price(name, d) for d in space.modules[name].dim]) / scale
            scores = [log - price * prices for log in dim_logs]
            best = np.array([0.0, *(score.max() for score in scores)]).cumsum()
            depths = np.array(space.genes[where.start].choices)
            vector.append(int(np.argmax(depth_logs + best[depths])))
            vector += [int(score.argmax()) for score in scores]
        arch = space.decode(vector)
        canonical = space.encode(arch)
        active = space.active(canonical)
        if space.feasible(arch):
            found[arch] = sum(
                log[i] for log, i, on in zip(logs, canonical, active, strict=True) if on
            )
    return sorted(found, key=lambda arch: -found[arch])
