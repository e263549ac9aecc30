"""Exact counting and exactly uniform drawing of architectures.

Distinct architectures are paths of automata (`automaton`), one for each module, or one for several
that a rule ties to each other. Rules about depths split the space into disjoint cases, in each of
which the automata are independent of each other. Counts by cost are tables of integers, exact at
any size; architectures are put in an order by cost and unranked, so that one uniform integer is
one uniform architecture.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

import numpy as np

from noahnas.space.automaton import PRESENT, Clause, Member, ModuleAutomaton, Option, State, View
from noahnas.space.rules import AtMost, Term, broken
from noahnas.space.schema import Value

Table = dict[int, int]  # cost -> number of distinct choices of exactly that cost
States = tuple[State, ...]  # of automata that move together
Content = dict[str, dict[str, tuple[Value, ...]]]  # module -> attribute -> values
STRETCHES = 64  # ways through some blocks that are told apart in one look
MAX_WORK = 3_000_000  # sums of integers after which exact counting is given up: about a second


class UncountableError(Exception):
    """Counting would take too long."""


class Work:
    """What counting has cost so far."""

    def __init__(self, limit: int = MAX_WORK) -> None:
        self.left = limit

    def spend(self, steps: int) -> None:
        """Raise UncountableError if there is not so much left."""
        self.left -= steps
        if self.left < 0:
            raise UncountableError


@dataclass(frozen=True)
class Step:
    """An option of several automata at once."""

    price: int
    state: States
    members: tuple[tuple[Option, ...], ...]  # alternatives: an option of each automaton
    ways: int

    @cached_property
    def each(self) -> list[tuple[tuple[Member, ...], int]]:
        """Its alternatives one by one, a member of each automaton, and in how many ways."""
        return [
            (members, math.prod(m.ways for m in members))
            for options in self.members
            for members in itertools.product(*(o.members for o in options))
        ]


class Joint:
    """Automata that move together, because rules between their modules look at single blocks.

    Args:
        automata: of the modules.
        clauses: that no block may break.
        at_most: how many of the modules a block may have.
    """

    def __init__(
        self,
        automata: Sequence[ModuleAutomaton],
        clauses: Sequence[Clause],
        at_most: Sequence[AtMost],
    ) -> None:
        self.automata = list(automata)
        self.clauses, self.at_most = list(clauses), list(at_most)
        self._options: dict[tuple[int, int, State], list[Option]] = {}

    @property
    def start(self) -> States:
        """The state before the first block."""
        return tuple(a.start for a in self.automata)

    def accepts(self, state: States) -> bool:
        """Whether what ends in this state is an architecture."""
        return all(a.accepts(s) for a, s in zip(self.automata, state, strict=True))

    def _of(self, which: int, block: int, state: State) -> list[Option]:
        key = (which, block, state)
        if key not in self._options:
            self._options[key] = self.automata[which].options(block, state)
        return self._options[key]

    def steps(self, block: int, state: States, work: Work) -> list[Step]:
        """What the block may hold after `state`."""
        rows = [self._of(i, block, s) for i, s in enumerate(state)]
        work.spend(math.prod(len(row) for row in rows))
        merged: dict[tuple[int, States], list[tuple[Option, ...]]] = {}
        for options in itertools.product(*rows):
            if self._allowed([o.view for o in options]):
                key = (sum(o.price for o in options), tuple(o.state for o in options))
                merged.setdefault(key, []).append(options)
        return [
            Step(price, after, tuple(members), sum(math.prod(o.ways for o in m) for m in members))
            for (price, after), members in merged.items()
        ]

    def _allowed(self, views: Sequence[View]) -> bool:
        if not self.clauses and not self.at_most:
            return True
        values: dict[Term, Value] = dict(chain.from_iterable(views))
        present = sum(bool(v) for term, v in values.items() if term.attribute == PRESENT)
        return all(present <= rule.count for rule in self.at_most) and not any(
            broken(first, second, values) for first, second in self.clauses
        )


@dataclass(frozen=True)
class Stretch:
    """Some blocks of a path: what they hold, and where the path goes on."""

    dims: tuple[tuple[int, ...], ...]  # of each automaton, block by block
    members: tuple[tuple[tuple[Member, ...], int], ...]  # per block: of each automaton; ways
    ways: int
    node: Node
    cost: int  # of the rest

    def then(
        self, options: Sequence[tuple[tuple[Member, ...], int]], step: Step, node: Node
    ) -> list[Stretch]:
        """This stretch with one more block, for each of its members."""
        return [
            Stretch(
                tuple((*d, m.dim) for d, m in zip(self.dims, members, strict=True)),
                (*self.members, (members, ways)),
                self.ways * ways,
                node,
                self.cost - step.price,
            )
            for members, ways in options
        ]


class Node:
    """A state after some blocks, and the ways on from it."""

    __slots__ = ("_walk", "ends", "high", "low", "on", "table")

    def __init__(self) -> None:
        self.on: list[tuple[Step, Node]] = []
        self.ends = False
        self.low, self.high = math.inf, -math.inf  # of the costs of what may follow
        self.table: Table = {}
        self._walk: dict[int, tuple[list[int], list[tuple[Stretch, int]]]] = {}

    def walk(self, cost: int, width: int) -> tuple[list[int], list[tuple[Stretch, int]]]:
        """Stretches that a path of exactly `cost` may begin with, and running counts of paths.

        A stretch is as many blocks as there are at most `STRETCHES` ways through.
        """
        found = self._walk.get(cost)
        if found is None:
            stretches = [Stretch(((),) * width, (), 1, self, cost)]
            while stretches and stretches[0].node.on:
                longer = [
                    further
                    for stretch in stretches
                    for step, node in stretch.node.on
                    if stretch.cost - step.price in node.table
                    for further in stretch.then(step.each, step, node)
                ]
                if len(longer) > STRETCHES and stretches[0].members:
                    break
                stretches = longer
            pairs = [(s, s.node.table[s.cost]) for s in stretches]
            found = (list(accumulate(s.ways * after for s, after in pairs)), pairs)
            self._walk[cost] = found
        return found


class Paths:
    """Every path of a joint automaton, counted by cost.

    Args:
        joint: the automaton.
        blocks: of the backbone.
        work: what counting may cost.
    """

    def __init__(self, joint: Joint, blocks: int, work: Work) -> None:
        self.joint, self.blocks, self.work = joint, blocks, work
        self.first = Node()
        layer: dict[States, Node] = {joint.start: self.first}
        self._layers = [layer]
        for block in range(blocks):
            after: dict[States, Node] = {}
            for state, node in layer.items():
                for step in joint.steps(block, state, work):
                    node.on.append((step, after.setdefault(step.state, Node())))
            layer = after
            self._layers.append(layer)
        for state, node in layer.items():
            node.ends = joint.accepts(state)
            if node.ends:
                node.low = node.high = 0
        for layer in reversed(self._layers[:-1]):
            for node in layer.values():
                node.on = [(step, n) for step, n in node.on if n.low <= n.high]
                node.low = min((s.price + n.low for s, n in node.on), default=math.inf)
                node.high = max((s.price + n.high for s, n in node.on), default=-math.inf)
        self._counted = False

    @property
    def empty(self) -> bool:
        """Whether there is no path."""
        return self.first.low > self.first.high

    @cached_property
    def table(self) -> Table:
        """Number of paths by cost, ascending.

        Raises:
            UncountableError: if that takes too long.
        """
        for layer in reversed(self._layers):
            for node in layer.values():
                if node.ends:
                    node.table = {0: 1}
                    continue
                table: Table = {}
                for step, after in node.on:
                    self.work.spend(len(after.table))
                    price, ways = step.price, step.ways
                    for cost, count in after.table.items():
                        table[cost + price] = table.get(cost + price, 0) + ways * count
                node.table = table
        return dict(sorted(self.first.table.items()))

    def unrank(self, index: int, cost: int) -> Content:
        """The choices number `index` (from 0) among those of exactly `cost`; `table` was built."""
        node, width = self.first, len(self.joint.automata)
        taken: list[tuple[Stretch, int]] = []
        while node.on:
            running, stretches = node.walk(cost, width)
            position = bisect_right(running, index)
            if position:
                index -= running[position - 1]
            stretch, after = stretches[position]
            way, index = divmod(index, after) if stretch.ways > 1 else (0, index)
            node, cost = stretch.node, stretch.cost
            taken.append((stretch, way))
        return self._content(taken)

    def extreme(self, least: bool) -> Content:
        """The first of the cheapest, or of the dearest, choices."""
        node = self.first
        path = Stretch(((),) * len(self.joint.automata), (), 1, node, 0)
        while node.on:
            wanted = node.low if least else node.high
            step, node = next(
                (s, n) for s, n in node.on if s.price + (n.low if least else n.high) == wanted
            )
            path = path.then(step.each[:1], step, node)[0]
        return self._content([(path, 0)])

    def _content(self, taken: Sequence[tuple[Stretch, int]]) -> Content:
        automata = self.joint.automata
        if not any(a.part.attributes for a in automata):
            return {
                a.part.name: {"dim": tuple(chain.from_iterable(s.dims[i] for s, _ in taken))}
                for i, a in enumerate(automata)
            }
        columns: list[list[tuple[Member, int]]] = [[] for _ in automata]
        for stretch, way in taken:
            for members, ways in stretch.members:
                way, own = divmod(way, ways)
                for column, member in zip(columns, members, strict=True):
                    own, which = divmod(own, member.ways)
                    column.append((member, which))
        return {a.part.name: a.content(column) for a, column in zip(automata, columns, strict=True)}


class Counter:
    """Counts the choices of several independent groups of modules in a window of cost, and draws.

    Args:
        groups: the paths of each.
        work: what counting may cost.
    """

    def __init__(self, groups: Sequence[Paths], work: Work) -> None:
        # The group with most costs comes first: its table is walked, the others' are multiplied.
        self.groups = sorted(groups, key=lambda paths: -len(paths.table))
        self._costs = [list(paths.table) for paths in self.groups]
        self._counts = [list(accumulate(paths.table.values(), initial=0)) for paths in self.groups]
        self._rest = [([0], [0, 1])]  # for each group: costs of all later ones, running counts
        table: Table = {0: 1}
        for paths in reversed(self.groups[1:]):
            work.spend(len(table) * len(paths.table))
            table = _product(table, paths.table)
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
        return self._cumulative(0, low, high)[-1]

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
