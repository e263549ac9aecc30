"""A space relaxed: each gene a distribution over its choices, differentiable and decodable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noahnas.errors import StrategyError
from noahnas.modules.asked import kind_of
from noahnas.space import Arch, Gene, Space
from noahnas.space.genes import Part
from noahnas.space.nearby import violations
from noahnas.space.schema import Value

Array = NDArray[np.float64]
Weights = Mapping[str, Mapping[Value, Tensor]]  # per gene: the probability of each of its choices
Scores = Mapping[str, Array]  # per gene: a number for each of its choices
Tables = dict[int, tuple[Array, Array]]  # per block
Dims = dict[str, list[dict[int, Tensor]]]  # per module and block: the probability of each dim
Values = dict[str, dict[str, list[Mapping[Value, Tensor]]]]  # and, by attribute, of each value
PRICES = (0.0, *np.geomspace(1e-3, 1e3, 241).tolist())  # of decoding, nats per whole budget
STARTS = 5  # decoded archs that are changed gene by gene
MAX_COMBINATIONS = 512  # of a module's attribute values in a block: each is a forward of its own


def check_mixture(space: Space) -> None:
    """Raise StrategyError where the mean of a space's networks cannot be computed."""
    for name, part in space.parts.items():
        count = math.prod(len(values) for values in part.attributes.values())
        if count > MAX_COMBINATIONS:
            names = " and ".join(part.attributes)
            raise StrategyError(
                f"{name} may have {count} combinations of {names} in a block, and the methods "
                f"gumbel and darts compute each of at most {MAX_COMBINATIONS}; offer fewer values, "
                "or use method=spos or another strategy"
            )
        kind = kind_of(name)
        given = [dict(zip(part.attributes, v, strict=True)) for v in _combinations(part)]
        for site in ("tokens", "prefix"):
            if len({site in kind.sites(**kind.complete(told)) for told in given}) > 1:
                raise StrategyError(
                    f"{name} adds tokens under some values of {', '.join(part.attributes)} and not "
                    "under others, of which the methods gumbel and darts can take no mean; use "
                    "method=spos or another strategy"
                )


def mixture(space: Space, weights: Weights) -> tuple[Dims, Values]:
    """What `Supernet.mixture` takes: probabilities of each module's dims and attribute values.

    A dim's are those that the depth reaches the block and that the dim is drawn. With P = P(the
    depth reaches the block): w_k becomes P·w_k for k > 0, and w_0 becomes 1 − P·(1 − w_0). Blocks
    that share a gene share its weights; an attribute has none where the module never is. Rules are
    not looked at.
    """
    dims: Dims = {}
    values: Values = {}
    for name, part in space.parts.items():
        depths = weights[part.genes[0].name]
        one = next(iter(depths.values())).new_ones(())
        dims[name] = [{0: one} for _ in range(space.blocks)]
        values[name] = {key: [{} for _ in range(space.blocks)] for key in part.attributes}
        for gene in part.genes[1:]:
            for block in gene.blocks:
                if gene.attribute != "dim":
                    values[name][gene.attribute][block] = weights[gene.name]
                    continue
                reach = [w for d, w in depths.items() if block in part.reach(int(d or 0))]
                reached = torch.stack(reach).sum()
                there = {int(d): reached * w for d, w in weights[gene.name].items() if d}
                absent = one - torch.stack([*there.values(), one * 0]).sum()
                dims[name][block] = {0: absent, **there}
    return dims, values


def expected_params(space: Space, weights: Weights) -> Tensor:
    """Mean number of prompt parameters when each gene is drawn by itself; differentiable."""
    dims, values = mixture(space, weights)
    total = []
    for name, part in space.parts.items():
        for block, chances in enumerate(dims[name]):
            if any(chances):
                p = torch.stack(list(chances.values()))  # (dims)
                mean = p.new_tensor(_params(space, part, list(chances)))  # (dims, *values)
                for key, choices in reversed(list(part.attributes.items())):
                    given = values[name][key][block]
                    mean = mean @ torch.stack([given[value] for value in choices])  # (dims, …)
                total.append((p * mean).sum())
            else:
                total.append(chances[0] * 0)
    return torch.stack(total).sum()


def _params(space: Space, part: Part, dims: Sequence[Value]) -> Array:
    """(dims, *values): prompt parameters in a block for each dim and each attribute value."""
    told = [dict(zip(part.attributes, found, strict=True)) for found in _combinations(part)]
    prices = [space.price(part.name, int(d or 0), **some) for d in dims for some in told]
    return np.array(prices, float).reshape(len(dims), *map(len, part.attributes.values()))


def _combinations(part: Part) -> Iterator[tuple[Value, ...]]:
    return product(*part.attributes.values())


# --- decoding ----------------------------------------------------------------------------------


def decode(space: Space, probabilities: Sequence[Array]) -> list[Arch]:
    """Feasible archs, the likeliest first: for each price of a parameter, the best arch.

    The best arch at a price maximises likelihood minus price × parameters, exactly: over each
    module's depth, and over its dims and attributes within it. Likelihood is, over the genes that
    count, log(p / p of the gene's likeliest choice); so without a price each gene takes its
    likeliest choice, and an arch is not likelier for having fewer genes that count. The five
    likeliest of these archs within the limits on parameters are then changed gene by gene, each
    time the one that leaves the fewest breaches of rules, then the likeliest arch within the
    limits, as long as that helps: rules have no price, and between two prices some of the budget
    is left over. Of all these archs those that meet the budget and keep to the rules are given.

    Args:
        space: whose genes they are.
        probabilities: for each gene, of each of its choices.
    """
    logs = {
        gene.name: np.log(np.maximum(p, 1e-12) / p.max())
        for gene, p in zip(space.genes, probabilities, strict=True)
    }
    scale = max(space.limits[1] or space.params(space.largest), 1)
    tables = {name: _tables(space, part) for name, part in space.parts.items()}
    vectors = [
        [
            index
            for name, part in space.parts.items()
            for index in _best(part, tables[name], logs, price / scale)
        ]
        for price in PRICES
    ]
    vectors.sort(key=lambda vector: (_beyond(space, vector)[1], -_score(space, logs, vector)))
    starts = list(dict.fromkeys(map(tuple, vectors)))[:STARTS]
    found: dict[Arch, float] = {}
    for vector in vectors + [_climbed(space, logs, list(start)) for start in starts]:
        arch = space.decode(vector)
        if space.contains(arch) and space.feasible(arch):
            found[arch] = max(_score(space, logs, vector), found.get(arch, -math.inf))
    return sorted(found, key=lambda arch: -found[arch])


def _score(space: Space, logs: Scores, vector: Sequence[int]) -> float:
    """The likelihood: over the genes that count, of each one's choice against its best."""
    rows = zip(space.genes, vector, space.active(vector), strict=True)
    return sum(float(logs[gene.name][index]) for gene, index, active in rows if active)


def _beyond(space: Space, vector: Sequence[int]) -> tuple[int, int]:
    """In how many places rules are broken, and how many parameters are too many or too few."""
    arch = space.decode(vector)
    low, high = space.limits
    params = space.params(arch)
    excess = 0 if high is None else params - high
    return violations(space, arch), max(low - params, excess, 0)


def _climbed(space: Space, logs: Scores, vector: list[int]) -> list[int]:
    """The vector, changed gene by gene: fewer breaches, then within the limits, then likelier."""
    best = (_beyond(space, vector), -_score(space, logs, vector))
    while True:
        before = best
        for changed in _one_changed(space, vector):
            rank = (_beyond(space, changed), -_score(space, logs, changed))
            if rank < best:
                best, better = rank, changed
        if best == before:
            return vector
        vector = better


def _one_changed(space: Space, vector: list[int]) -> Iterator[list[int]]:
    for i, active in enumerate(space.active(vector)):
        for index in range(len(space.genes[i].choices)) if active else ():
            if index != vector[i]:
                yield [*vector[:i], index, *vector[i + 1 :]]


def _tables(space: Space, part: Part) -> Tables:
    """Per block (dims, *values + 1), twice: parameters, and infinity at what cannot be.

    The last index of an attribute stands for one that does not count, which cannot be where the
    module is. A block that never has it has no tables.
    """
    found: Tables = {}
    for gene in part.genes:
        if gene.attribute == "dim" and any(gene.choices):
            inside = _params(space, part, gene.choices)  # (dims, *values)
            margin = [(0, 0), *((0, 1) for _ in part.attributes)]
            params = np.pad(inside, margin)  # (dims, *values + 1)
            barred = np.pad(np.zeros_like(inside), margin, constant_values=np.inf)
            barred[[not dim for dim in gene.choices]] = 0.0
            for block in gene.blocks:
                found[block] = params, barred
    return found


def _best(part: Part, tables: Tables, logs: Scores, price: float) -> list[int]:
    """The indices of a module's genes that score best at a price of a parameter."""
    best: tuple[float, list[int]] = (-np.inf, [])
    for index, depth in enumerate(part.depths):
        score, chosen = _reaching(part, depth, tables, logs, price)
        score += float(logs[part.genes[0].name][index])
        if score > best[0]:
            best = (score, [index, *(chosen[gene.name] for gene in part.genes[1:])])
    return best[1]


def _reaching(
    part: Part, depth: int, tables: Tables, logs: Scores, price: float
) -> tuple[float, dict[str, int]]:
    """The best score and indices at a depth, block by block (max-sum elimination).

    A gene is an axis of the array of scores from the first block that shares it to the last; then
    the array keeps its maximum over the axis, and from which index that came.
    """
    blocks = list(part.reach(depth))
    axes = {key: axis for axis, key in enumerate(("dim", *part.attributes))}
    begin: dict[int, list[Gene]] = {}
    end: dict[int, list[Gene]] = {}
    for gene in part.genes[1:]:
        if shared := [block for block in gene.blocks if block in blocks]:
            begin.setdefault(shared[0], []).append(gene)
            end.setdefault(shared[-1], []).append(gene)
    scores = np.zeros((1,) * len(axes))  # (dims, *values + 1), 1 where no gene is open
    opened: list[Gene | None] = [None] * len(axes)
    ended: list[tuple[Gene, Array, list[Gene | None]]] = []
    for block in blocks:
        for gene in begin.get(block, ()):
            axis = axes[gene.attribute]
            own = logs[gene.name] if axis == 0 else [*logs[gene.name], 0.0]
            scores = scores + np.reshape(own, [-1 if a == axis else 1 for a in range(len(axes))])
            opened[axis] = gene
        if block in tables:
            params, barred = tables[block]
            scores = scores - price * params - barred
        for gene in end.get(block, ()):
            axis = axes[gene.attribute]
            opened[axis] = None
            ended.append((gene, scores.argmax(axis, keepdims=True), list(opened)))
            scores = scores.max(axis, keepdims=True)
    chosen: dict[str, int] = {}
    for gene, indices, others in reversed(ended):
        chosen[gene.name] = int(indices[tuple(chosen[o.name] if o else 0 for o in others)])
    likely = {gene.name: int(logs[gene.name].argmax()) for gene in part.genes[1:]}
    counts = {g.name: chosen[g.name] for g, *_ in ended if chosen[g.name] < len(g.choices)}
    return float(scores.item()), likely | counts  # what does not count is at its likeliest
