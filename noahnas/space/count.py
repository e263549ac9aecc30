"""Exact counting and exactly uniform drawing of architectures.

Distinct architectures are paths of automata (`automaton`), one for each module, or one for several
that a rule ties to each other. Rules about depths split the space into disjoint cases, in each of
which the automata are independent of each other. Counts by cost are tables of integers, exact at
any size; architectures are put in an order by cost and unranked, so that one uniform integer is
one uniform architecture.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import numpy as np

from noahnas.space.automaton import ModuleAutomaton
from noahnas.space.joint import STEP_WORK, Joint, Picked, States, Step
from noahnas.space.option import Option
from noahnas.space.paths import Ladder, Node, Stretch, Table
from noahnas.space.schema import Value
from noahnas.space.work import Work

ENTRY_WORK = 80  # what it costs to enter a ladder, in sums
Content = dict[str, dict[str, tuple[Value, ...]]]  # module -> attribute -> values


class Paths:
    """Every path of a joint automaton, counted by cost.

    Args:
        joint: the automaton.
        blocks: of the backbone.
        work: what counting may cost.
    """

    def __init__(self, joint: Joint, blocks: int, work: Work) -> None:
        self.joint, self.blocks, self.work = joint, blocks, work
        self.most = -math.inf  # a cost beyond which nothing is counted
        self._names = [a.part.name for a in joint.automata]
        self.first = Node()
        self.first.least = 0
        self._orders: list[list[Node]] = []  # of each block: nodes, each before those it leads to
        layer: dict[States, Node] = {joint.start: self.first}
        for block in range(blocks):
            after: dict[States, Node] = {}
            nodes = list(layer.values())
            if joint.ladder:
                nodes += self._climb(joint.ladder, block, layer, after)
            else:
                for state, node in layer.items():
                    steps = joint.steps(block, state, work)
                    work.spend(STEP_WORK * len(steps))
                    node.on = [(s, after.setdefault(s.state, Node())) for s in steps]
            self._orders.append(nodes)
            layer = after
        self._orders.append(list(layer.values()))
        for state, node in layer.items():
            node.ends = joint.accepts(state)
            if node.ends:
                node.low = node.high = 0
        for nodes in reversed(self._orders[:-1]):
            for node in reversed(nodes):
                node.bound()
        for nodes in self._orders[:-1]:
            for node in nodes:
                node.reach()

    def _climb(
        self,
        automaton: ModuleAutomaton,
        block: int,
        layer: dict[States, Node],
        after: dict[States, Node],
    ) -> list[Node]:
        """Ways on of a module whose values are in order, over ladders; gives their rungs."""
        ladders: dict[object, tuple[Ladder, list[Any]]] = {}
        rungs: list[Node] = []
        falls = automaton.ladder == "non-increasing"

        def to(option: Option) -> tuple[Step, Node]:
            step = self.joint.step(option, self.work)
            return step, after.setdefault(step.state, Node())

        for (state,), node in layer.items():
            absent, options = automaton.unordered(block, state, self.work)
            self.work.spend(ENTRY_WORK)
            node.on = [] if absent is None else [to(absent)]
            key = state._replace(lasts=())
            if key not in ladders:
                by_value: dict[Any, list[Option]] = {}
                self.work.spend(ENTRY_WORK * len(options))
                for option in options:
                    by_value.setdefault(option.state.lasts[0], []).append(option)
                values = sorted(by_value, reverse=falls)
                ladder = Ladder([Node() for _ in values])
                for i, (rung, value) in enumerate(zip(ladder.rungs, values, strict=True)):
                    rung.on = [to(option) for option in by_value[value]]
                    if i + 1 < len(values):
                        rung.ladder, rung.rung = ladder, i + 1
                ladders[key] = ladder, [-v for v in values] if falls else values
                rungs += ladder.rungs
            ladder, ascending = ladders[key]
            last: Any = state.lasts[0]
            place = 0 if last is None else bisect_left(ascending, -last if falls else last)
            if place < len(ladder.rungs):
                node.ladder, node.rung = ladder, place
        return rungs

    @property
    def empty(self) -> bool:
        """Whether there is no path."""
        return self.first.low > self.first.high

    @cached_property
    def table(self) -> Table:
        """Number of paths by cost up to `most`, ascending.

        Raises:
            UncountableError: if that takes too long.
        """
        for node in self._orders[-1]:
            node.table = {0: 1} if node.ends else {}
        for nodes in reversed(self._orders[:-1]):
            for node in reversed(nodes):
                most = self.most - node.least
                rung = node.climbs
                table = {} if rung is None else self._copied(rung, most)
                for step, after in node.on:
                    # Numbers are as long as the blocks that follow are many.
                    self.work.spend((1 + after.bits // 1024) * (2 + len(after.table)))
                    price, ways, left = step.price, step.ways, most - step.price
                    for cost, count in after.table.items():
                        if cost <= left:
                            table[cost + price] = table.get(cost + price, 0) + ways * count
                node.table = table
                node.bits = max(table.values(), default=0).bit_length()
        return dict(sorted(self.first.table.items()))

    def _copied(self, rung: Node, most: float) -> Table:
        self.work.spend(2 + len(rung.table) // 2)
        return {cost: count for cost, count in rung.table.items() if cost <= most}

    def unrank(self, index: int, cost: int) -> Content:
        """The choices number `index` (from 0) among those of exactly `cost`; `table` was built."""
        node, plain = self.first, self.joint.plain
        taken: list[tuple[Stretch, int]] = []
        while not node.ends:
            stretch, way, index = node.take(index, cost, plain)
            node, cost = stretch.node, stretch.cost
            taken.append((stretch, way))
        if plain:
            rows = [s.dims if s.step is None else s.step.dims_of(way) for s, way in taken]
            return {
                name: {"dim": tuple(chain.from_iterable(row[i] for row in rows))}
                for i, name in enumerate(self._names)
            }
        return self._content([s.step.pick(way) for s, way in taken if s.step])

    def extreme(self, least: bool) -> Content:
        """The first of the cheapest, or of the dearest, choices."""
        node = self.first
        picked = []
        while not node.ends:
            step, node = node.extreme(least)
            picked.append(step.pick(0))
        return self._content(picked)

    def _content(self, blocks: Sequence[Picked]) -> Content:
        pairs = zip(self.joint.automata, zip(*blocks, strict=True), strict=True)
        return {automaton.part.name: automaton.content(column) for automaton, column in pairs}


class Counter:
    """Counts the choices of several independent groups of modules in a window of cost, and draws.

    Args:
        groups: the paths of each.
        work: what counting may cost.
        most: a cost beyond which nothing is counted.
    """

    def __init__(self, groups: Sequence[Paths], work: Work, most: float = math.inf) -> None:
        # The group with most costs comes first: its table is walked, the others' are multiplied.
        self.groups = sorted(groups, key=lambda paths: -len(paths.table))
        self._costs = [list(paths.table) for paths in self.groups]
        self._counts = [list(accumulate(paths.table.values(), initial=0)) for paths in self.groups]
        self._rest = [([0], [0, 1])]  # for each group: costs of all later ones, running counts
        table: Table = {0: 1}
        for paths in reversed(self.groups[1:]):
            work.spend(len(table) * len(paths.table))
            table = _product(table, paths.table, most)
            costs = sorted(table)
            running = list(accumulate((table[cost] for cost in costs), initial=0))
            self._rest.insert(0, (costs, running))
        self._running: dict[tuple[int, int, int], list[int]] = {}

    def _between(self, group: int, low: int, high: int) -> int:
        """Choices of the groups after this one that cost `low` to `high` together."""
        costs, running = self._rest[group]
        return max(running[bisect_right(costs, high)] - running[bisect_left(costs, low)], 0)

    def _cumulative(self, group: int, low: int, high: int) -> list[int]:
        """Running count over this group's costs of choices from it on, within the window."""
        key = (group, low, high)
        if key not in self._running:
            table = self.groups[group].table
            weights = (w * self._between(group, low - c, high - c) for c, w in table.items())
            self._running[key] = list(accumulate(weights))
        return self._running[key]

    def count(self, low: int, high: int) -> int:
        """Number of distinct choices that cost `low` to `high`."""
        running = self._cumulative(0, low, high)
        return running[-1] if running else 0

    def unrank(self, index: int, low: int, high: int) -> Content:
        """The choices number `index` (from 0) among those that cost `low` to `high`."""
        found: Content = {}
        last = len(self.groups) - 1
        for i, paths in enumerate(self.groups):
            if i < last:
                running = self._cumulative(i, low, high)
                position = bisect_right(running, index)
                if position:
                    index -= running[position - 1]
                cost = self._costs[i][position]
                low, high = low - cost, high - cost
                own, index = divmod(index, self._between(i, low, high))
            else:
                counts = self._counts[i]
                index += counts[bisect_left(self._costs[i], low)]
                position = bisect_right(counts, index) - 1
                cost, own = self._costs[i][position], index - counts[position]
            found |= paths.unrank(own, cost)
        return found


def _product(first: Table, second: Table, most: float) -> Table:
    table: Table = {}
    for a, ways_a in first.items():
        for b, ways_b in second.items():
            if a + b > most:
                break
            table[a + b] = table.get(a + b, 0) + ways_a * ways_b
    return table


def uniform_below(rng: np.random.Generator, limit: int, n: int) -> list[int]:
    """`n` exactly uniform integers in [0, limit), for limits of any size.

    Raises:
        ValueError: if there is none.
    """
    if limit < 1:
        raise ValueError(f"no integer is at least 0 and below {limit}")
    size = (limit.bit_length() + 7) // 8 or 1
    excess = 8 * size - limit.bit_length()
    found: list[int] = []
    while len(found) < n:
        draw = rng.bytes(size * (n - len(found)) * 2)
        chunks = (draw[i : i + size] for i in range(0, len(draw), size))
        values = (int.from_bytes(chunk, "little") >> excess for chunk in chunks)
        found += [value for value in values if value < limit]
    return found[:n]
