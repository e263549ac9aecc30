"""A space relaxed: each gene a distribution over its choices, differentiable and decodable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noahnas.errors import StrategyError
from noahnas.space import Arch, Gene, Space
from noahnas.space.genes import Part

Weights = Mapping[str, Mapping[int, Tensor]]  # per gene: the probability of each of its choices
Scores = Mapping[str, NDArray[np.float64]]  # per gene: a number for each of its choices
PRICES = (0.0, *np.geomspace(1e-3, 1e3, 61).tolist())  # of a decoding, nats per whole budget


def check_relaxable(space: Space) -> None:
    """Raise StrategyError if the space has choices that no mean of networks stands for."""
    chosen = [gene.name for gene in space.genes if _fixed_kind(gene) and len(gene.choices) > 1]
    chosen += [g.name for g in space.genes if _fixed_kind(g) and not _at_default(space, g)]
    if chosen:
        names = ", ".join(dict.fromkeys(chosen))
        raise StrategyError(
            f"the methods gumbel and darts relax dims and depths alone, not {names}; "
            "use method=spos, another strategy, or leave them at their default"
        )


def _fixed_kind(gene: Gene) -> bool:
    return gene.attribute not in ("dim", "depth")


def _at_default(space: Space, gene: Gene) -> bool:
    return gene.choices[0] == space.parts[gene.module].defaults[gene.attribute]


def mixture(space: Space, weights: Weights) -> dict[str, list[dict[int, Tensor]]]:
    """Each module's dim in each block as probabilities: its depth reaches the block, and its dim.

    With P = P(the depth reaches the block): w_k becomes P·w_k for k > 0, and w_0 becomes
    1 − P·(1 − w_0). Blocks that share a gene share its weights. Rules are not looked at.
    """
    found: dict[str, list[dict[int, Tensor]]] = {}
    for name, part in space.parts.items():
        depths = weights[part.genes[0].name]
        one = next(iter(depths.values())).new_ones(())
        found[name] = [{0: one} for _ in range(space.blocks)]
        for gene in _dims(part):
            for block in gene.blocks:
                reach = [w for depth, w in depths.items() if block in part.reach(depth)]
                reached = torch.stack(reach).sum()
                there = {dim: reached * w for dim, w in weights[gene.name].items() if dim}
                absent = one - torch.stack([*there.values(), one * 0]).sum()
                found[name][block] = {0: absent, **there}
    return found


def _dims(part: Part) -> list[Gene]:
    return [gene for gene in part.genes if gene.attribute == "dim"]


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
    module's depth, and over each dim within it. Rules are not relaxed: what breaks one is left out.
    """
    scale = max(space.limits[1] or space.params(space.dearest), 1)
    logs = {
        gene.name: np.log(np.maximum(p, 1e-12))
        for gene, p in zip(space.genes, probabilities, strict=True)
    }
    found: dict[Arch, float] = {}
    for price in PRICES:
        vector = [
            i for part in space.parts.values() for i in _best(space, part, logs, price / scale)
        ]
        arch = space.decode(vector)
        if space.contains(arch) and space.feasible(arch):
            canonical = space.encode(arch)
            active = space.active(canonical)
            found[arch] = sum(
                logs[gene.name][i]
                for gene, i, on in zip(space.genes, canonical, active, strict=True)
                if on
            )
    return sorted(found, key=lambda arch: -found[arch])


def _best(space: Space, part: Part, logs: Scores, price: float) -> list[int]:
    """The indices of a module's genes that score best at a price of a parameter."""
    genes = _dims(part)
    costs = [np.array([space.price(part.name, int(d or 0)) for d in g.choices]) for g in genes]
    best: tuple[float, list[int]] = (-np.inf, [])
    for index, depth in enumerate(part.depths):
        score, dims = float(logs[part.genes[0].name][index]), []
        reached = set(part.reach(depth))
        for gene, cost in zip(genes, costs, strict=True):
            times = len(reached & set(gene.blocks))
            scores = logs[gene.name] - price * cost * times
            dims.append(int(scores.argmax()))
            score += float(scores.max()) if times else 0.0
        if score > best[0]:
            best = (score, [index, *dims])
    return best[1] + [0] * (len(part.genes) - 1 - len(genes))
