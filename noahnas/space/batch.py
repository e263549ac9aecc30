"""Many gene vectors at once, as arrays: what they hold, what rules they keep to, what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from noahnas.space.genes import Part
from noahnas.space.rules import OPERATORS, AtMost, Comparison, Implies, Ordered, Rule, Term

if TYPE_CHECKING:
    from noahnas.space.space import Space

Array = np.ndarray[Any, Any]
SAFE = 2**62  # sums below it fit 64 bits


class Batch:
    """Gene vectors of a space; `decode` gives the same arch by arch.

    Args:
        space: whose genes they are.
        vectors: indices of choices, (n, genes).
    """

    def __init__(self, space: Space, vectors: Array) -> None:
        self.space, self.vectors, self.n = space, vectors, len(vectors)
        self._columns = {name: vectors[:, where] for name, where in space.slices.items()}
        self._dims: dict[str, Array] = {}

    def dims(self, name: str) -> Array:
        """A module's dims, (n, blocks)."""
        if name not in self._dims:
            self._dims[name] = self._decoded(self.space.parts[name], self._columns[name])
        return self._dims[name]

    def _decoded(self, part: Part, vectors: Array) -> Array:
        found = np.zeros((self.n, part.blocks), dtype=np.int64)  # n, blocks
        rows: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for gene, group in enumerate(part.groups, start=1):
            rows.setdefault(part.choices[group[0]], []).extend((gene, block) for block in group)
        for choices, places in rows.items():
            genes, blocks = zip(*places, strict=True)
            found[:, list(blocks)] = np.array(choices)[vectors[:, list(genes)]]
        depths = np.array(part.depths)[vectors[:, :1]]  # n, 1
        block = np.arange(part.blocks)  # blocks
        reached = block >= part.blocks - depths if part.from_last else block < depths  # n, blocks
        return np.where(reached, found, 0)

    def _picked(self, name: str, attribute: str) -> Array:
        """Which choice of an attribute each block has, wherever the module is; (n, blocks)."""
        part = self.space.parts[name]
        genes = np.zeros(part.blocks, dtype=np.int64)  # blocks
        for i, gene in enumerate(part.genes):
            if gene.attribute == attribute and i:
                genes[list(gene.blocks)] = i
        found: Array = self._columns[name][:, genes]  # n, blocks
        found[:, genes == 0] = 0  # the module is never there
        return found

    # --- rules -------------------------------------------------------------------------------

    @cached_property
    def obeys(self) -> Array:
        """Whether each keeps to the rules, (n,)."""
        found = np.ones(self.n, dtype=bool)  # n
        for rule in self.space.bound_rules:
            found &= ~self._breaks(rule).any(axis=1)
        return found

    def _breaks(self, rule: Rule) -> Array:
        """Where a rule is broken: (n, blocks), or (n, 1) if it is about depths."""
        if isinstance(rule, AtMost):
            there = [self.dims(name) > 0 for name in self.space.parts]
            many: Array = np.sum(there, axis=0) > rule.count
            return many
        if isinstance(rule, Ordered):
            return self._disordered(rule)
        if isinstance(rule, Implies):
            met: Array = self._holds(rule.condition, True) & self._holds(rule.conclusion, False)
            return met
        return self._holds(rule, False)

    def _disordered(self, rule: Ordered) -> Array:
        name, attribute = rule.term.module, rule.term.attribute
        there = self.dims(name) > 0  # n, blocks
        if attribute == "dim":
            values = self.dims(name).astype(float)  # n, blocks
        else:
            choices = self.space.parts[name].attributes[attribute]
            values = np.array(choices, dtype=float)[self._picked(name, attribute)]  # n, blocks
        values = values if rule.order == "non-decreasing" else -values
        values = np.where(there, values, -np.inf)
        most = np.maximum.accumulate(values, axis=1)  # n, blocks
        found: Array = there & (values < most)
        return found

    def _holds(self, rule: Comparison, wanted: bool) -> Array:
        """Where a comparison has this truth; of a block without a value it has none."""
        left, compare = rule.left, OPERATORS[rule.op]
        if left.attribute not in ("dim", "depth"):
            choices = self.space.parts[left.module].attributes[left.attribute]
            truth = np.array([v is not None and compare(v, rule.right) is wanted for v in choices])
            there = self.dims(left.module) > 0  # n, blocks
            known: Array = truth[self._picked(left.module, left.attribute)] & there
            return known
        right: Any = self._value(rule.right) if isinstance(rule.right, Term) else rule.right
        values: Any = self._value(left)
        found: Array = np.asarray(compare(values, right))
        return found if wanted else ~found

    def _value(self, term: Term) -> Array:
        dims = self.dims(term.module)
        return dims if term.attribute == "dim" else (dims > 0).sum(axis=1, keepdims=True)

    # --- costs -------------------------------------------------------------------------------

    def total(self, *, flops: bool = False) -> Array:
        """Prompt parameters, or FLOPs, of each; (n,), exact."""
        parts = [self._cost(name, flops) for name in self.space.parts]
        total: Array = np.sum(parts, axis=0)
        return total

    def _cost(self, name: str, flops: bool) -> Array:
        part, dims = self.space.parts[name], self.dims(name)
        known = np.unique(dims)  # dims
        codes = np.searchsorted(known, dims)  # n, blocks
        prices = self.space.prices
        classes = prices.told_apart(name, flops=flops)
        rows: list[tuple[str, Sequence[Any]]] = []
        for (attribute, choices), groups in zip(part.attributes.items(), classes, strict=True):
            which = {value: i for i, group in enumerate(groups) for value in group}
            if len(groups) > 1:
                of = np.array([which[value] for value in choices])  # choices
                codes = codes * len(groups) + of[self._picked(name, attribute)]
            rows.append((attribute, [group[0] for group in groups]))
        found, places = np.unique(codes, return_inverse=True)
        price = prices.flops if flops else prices.params
        costs: list[int] = []
        for code in found.tolist():
            values: dict[str, Any] = {}
            for attribute, firsts in reversed(rows):
                code, which_ = divmod(code, len(firsts))
                values[attribute] = firsts[which_]
            dim = int(known[code])
            costs.append(price(name, dim, values) if dim else 0)
        large = max(costs, default=0) * part.blocks * len(self.space.parts) >= SAFE
        of_code = np.array(costs, dtype=object if large else np.int64)
        total: Array = of_code[places.reshape(codes.shape)].sum(axis=1)
        return total

    @cached_property
    def feasible(self) -> Array:
        """Whether each meets the budget, rules apart; (n,). Latency is measured one by one."""
        low, high = self.space.limits
        found = np.ones(self.n, dtype=bool)  # n
        if low or high is not None:
            params = self.total()  # n
            found = found & (params >= low)
            if high is not None:
                found = found & (params <= high)
        most = self.space.prices.flops_limit
        if most is not None:
            found = found & (self.total(flops=True) <= most)
        if self.space.prices.timed:
            for row in found.nonzero()[0]:
                found[row] = self.space.feasible(self.space.decode(self.vectors[row].tolist()))
        return found
