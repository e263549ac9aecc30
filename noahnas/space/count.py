"""Exact counting and exactly uniform drawing of architectures under a parameter budget.

Distinct architectures are put in an order by cost and unranked, so that one uniform integer is one
uniform architecture. A module's distinct dims are: for each depth that counts, every choice of dims
in the first blocks. If 0 is a dim, deep ones contain the shallow ones and only the deepest counts.
Costs add up over blocks and modules, so counts by cost are convolutions of small tables of
integers, exact at any size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np

Table = dict[int, int]  # cost -> number of distinct choices of exactly that cost
Dims = tuple[int, ...]


class ModuleCounter:
    """Counts one module's distinct dims by cost.

    Args:
        prices: cost of each dim in one block.
        depths: how many blocks may have the module.
        blocks: of the backbone.
    """

    def __init__(self, prices: Mapping[int, int], depths: Sequence[int], blocks: int) -> None:
        self.prices = dict(sorted(prices.items()))
        self.blocks = blocks
        self.depths = [max(depths)] if 0 in prices else sorted(depths)

    @cached_property
    def _ways(self) -> list[Table]:
        """For n = 0, 1, …: dims of n blocks, by cost."""
        tables: list[Table] = [{0: 1}]
        for _ in range(self.depths[-1]):
            table: Table = {}
            for cost, ways in tables[-1].items():
                for price in self.prices.values():
                    table[cost + price] = table.get(cost + price, 0) + ways
            tables.append(table)
        return tables

    @cached_property
    def table(self) -> Table:
        """Distinct dims over all blocks, by cost, ascending."""
        total: Table = {}
        for depth in self.depths:
            for cost, ways in self._ways[depth].items():
                total[cost] = total.get(cost, 0) + ways
        return dict(sorted(total.items()))

    def unrank(self, index: int, cost: int) -> Dims:
        """The dims number `index` (from 0) among those of exactly `cost`."""
        for depth in self.depths:
            ways = self._ways[depth].get(cost, 0)
            if index < ways:
                return self._unrank_blocks(index, cost, depth)
            index -= ways
        raise IndexError("no so many choices of this cost")

    def _unrank_blocks(self, index: int, cost: int, depth: int) -> Dims:
        dims = []
        for left in range(depth - 1, -1, -1):
            table = self._ways[left]
            for dim, price in self.prices.items():
                ways = table.get(cost - price, 0)
                if index < ways:
                    dims.append(dim)
                    cost -= price
                    break
                index -= ways
        return (*dims, *(0,) * (self.blocks - depth))


class Counter:
    """Counts the distinct architectures of several modules that cost at most a limit, and draws.

    Args:
        modules: a counter for each module.
    """

    def __init__(self, modules: Mapping[str, ModuleCounter]) -> None:
        # The module with most costs comes first: its table is walked, the others' are multiplied.
        self.modules = dict(sorted(modules.items(), key=lambda item: -len(item[1].table)))
        self._costs = [list(counter.table) for counter in self.modules.values()]
        self._running: dict[tuple[int, int], list[int]] = {}

    @cached_property
    def _rest(self) -> list[tuple[list[int], list[int]]]:
        """For each module: ascending costs of all later ones together, and running counts."""
        table: Table = {0: 1}
        found = []
        for counter in reversed(self.modules.values()):
            costs = sorted(table)
            found.append((costs, list(accumulate(table[cost] for cost in costs))))
            if len(found) < len(self.modules):
                table = _product(table, counter.table)
        return found[::-1]

    def _below(self, module: int, limit: int) -> int:
        """Choices of the modules after `module` that cost at most `limit` together."""
        costs, counts = self._rest[module]
        position = bisect_right(costs, limit)
        return counts[position - 1] if position else 0

    def _cumulative(self, module: int, limit: int) -> list[int]:
        """Running count over this module's costs of choices from it on, within the limit."""
        key = (module, limit)
        if key not in self._running:
            table = list(self.modules.values())[module].table
            weights = (ways * self._below(module, limit - cost) for cost, ways in table.items())
            self._running[key] = list(accumulate(weights))
        return self._running[key]

    def count(self, limit: int) -> int:
        """Number of distinct architectures that cost at most `limit`."""
        return self._cumulative(0, limit)[-1]

    def unrank(self, index: int, limit: int) -> dict[str, Dims]:
        """The architecture number `index` (from 0) among those that cost at most `limit`.

        Raises:
            IndexError: if there are not so many.
        """
        if not 0 <= index < self.count(limit):
            raise IndexError(f"no architecture {index} of {self.count(limit)}")
        found = {}
        for i, (name, counter) in enumerate(self.modules.items()):
            running = self._cumulative(i, limit)
            position = bisect_right(running, index)
            index -= running[position - 1] if position else 0
            cost = self._costs[i][position]
            own, index = divmod(index, self._below(i, limit - cost))
            found[name] = counter.unrank(own, cost)
            limit -= cost
        return found


def _product(first: Table, second: Table) -> Table:
    table: Table = {}
    for a, ways_a in first.items():
        for b, ways_b in second.items():
            table[a + b] = table.get(a + b, 0) + ways_a * ways_b
    return table


def uniform_below(rng: np.random.Generator, limit: int, n: int) -> list[int]:
    """`n` exactly uniform integers in [0, limit), for limits of any size."""
    size = (limit.bit_length() + 7) // 8 or 1
    excess = 8 * size - limit.bit_length()
    found: list[int] = []
    while len(found) < n:
        draw = rng.bytes(size * (n - len(found)) * 2)
        chunks = (draw[i : i + size] for i in range(0, len(draw), size))
        values = (int.from_bytes(chunk, "little") >> excess for chunk in chunks)
        found += [value for value in values if value < limit]
    return found[:n]
