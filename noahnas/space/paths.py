"""Paths as a graph, counted by cost, that is walked by number.

Where dims or values must be in order, what may follow a value is a *ladder*: a chain of rungs, one
for each value in that order, which a path enters at the last value and climbs as far as it likes.
So an order among V values takes of the order of V edges a block rather than V².
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from noahnas.space.joint import Step

Table = dict[int, int]  # cost -> number of distinct choices of exactly that cost
Dims = tuple[tuple[int, ...], ...]  # of each automaton, block by block
STRETCHES = 64  # ways through some blocks that are told apart in one look


@dataclass(frozen=True)
class Stretch:
    """Some blocks of a path: what they hold, and where the path goes on."""

    dims: Dims
    node: Node
    cost: int  # of the rest
    step: Step | None = None  # one block whose ways are not told apart beforehand


class Node:
    """A state after some blocks, and the ways on from it; or a rung of a ladder."""

    __slots__ = ("_walk", "bits", "ends", "high", "ladder", "least", "low", "on", "rung", "table")

    def __init__(self) -> None:
        self.on: list[tuple[Step, Node]] = []
        self.ladder: Ladder | None = None  # on which the rung number `rung` is a way on, too
        self.rung = 0
        self.ends = False
        self.low, self.high = math.inf, -math.inf  # of the costs of what may follow
        self.least = math.inf  # that a path here has cost
        self.table: Table = {}
        self.bits = 1  # of the longest number in it
        self._walk: dict[int, tuple[list[int], list[Stretch]]] = {}

    @property
    def climbs(self) -> Node | None:
        """The rung that is a way on without a block."""
        return self.ladder.rungs[self.rung] if self.ladder else None

    def bound(self) -> None:
        """Find the least and the most that what follows may cost; leave out what has no end."""
        self.on = [(step, node) for step, node in self.on if node.low <= node.high]
        if self.ladder and self.ladder.rungs[self.rung].low == math.inf:
            self.ladder = None
        rung = self.climbs
        self.low = min((s.price + n.low for s, n in self.on), default=math.inf)
        self.high = max((s.price + n.high for s, n in self.on), default=-math.inf)
        if rung:
            self.low, self.high = min(self.low, rung.low), max(self.high, rung.high)

    def reach(self) -> None:
        """Tell the least that a path has cost to what follows."""
        for step, node in self.on:
            node.least = min(node.least, self.least + step.price)
        rung = self.climbs
        if rung:
            rung.least = min(rung.least, self.least)

    def extreme(self, least: bool) -> tuple[Step, Node]:
        """The first step of one of the cheapest, or of the dearest, ways on."""
        wanted = self.low if least else self.high
        at: Node | None = self
        while at:
            for step, node in at.on:
                if step.price + (node.low if least else node.high) == wanted:
                    return step, node
            at = at.climbs
        raise AssertionError("what has a cost has a way on")

    def walk(self, cost: int, plain: bool) -> tuple[list[int], list[Stretch]]:
        """Stretches that a path of exactly `cost` may begin with, and running counts of paths.

        A stretch is as many blocks as there are at most `STRETCHES` ways through.
        """
        found = self._walk.get(cost)
        if found is None:
            stretches = self._stretches(cost, plain)
            ways = (s.node.table[s.cost] * (s.step.ways if s.step else 1) for s in stretches)
            found = (list(accumulate(ways)), stretches)
            self._walk[cost] = found
        return found

    def _stretches(self, cost: int, plain: bool) -> list[Stretch]:
        if not plain:
            return self._steps(cost)
        stretches = [Stretch((), self, cost)]
        while stretches[0].node.on and not any(s.node.ladder for s in stretches):
            on = [
                (stretch, step, node)
                for stretch in stretches
                for step, node in stretch.node.on
                if stretch.cost - step.price in node.table
            ]
            if sum(step.ways for _, step, _ in on) > STRETCHES:
                break
            stretches = [
                Stretch(
                    tuple(
                        (*row, d) for row, d in zip(s.dims or ((),) * len(dims), dims, strict=True)
                    ),
                    node,
                    s.cost - step.price,
                )
                for s, step, node in on
                for dims in step.dims
            ]
        return stretches if stretches[0].dims else self._steps(cost)

    def _steps(self, cost: int) -> list[Stretch]:
        """Each step on as a stretch of one block."""
        return [
            Stretch((), node, cost - step.price, step)
            for step, node in self.on
            if cost - step.price in node.table
        ]

    def take(self, index: int, cost: int, plain: bool) -> tuple[Stretch, int, int]:
        """Where path number `index` of exactly `cost` goes on.

        Gives the stretch, which of the stretch's ways, and the number among the paths after it.
        """
        if not self.ladder:
            return self.take_here(index, cost, plain)
        below = sum(s.ways * n.table.get(cost - s.price, 0) for s, n in self.on)
        if index < below:
            return self.take_here(index, cost, plain=False)
        rung, index = self.ladder.find(self.rung, index - below, cost)
        return rung.take_here(index, cost, plain=False)

    def take_here(self, index: int, cost: int, plain: bool) -> tuple[Stretch, int, int]:
        """As `take`, no ladder climbed."""
        running, stretches = self.walk(cost, plain)
        position = bisect_right(running, index)
        if position:
            index -= running[position - 1]
        stretch = stretches[position]
        if stretch.step is None:
            return stretch, 0, index
        way, index = divmod(index, stretch.node.table[stretch.cost])
        return stretch, way, index


@dataclass
class Ladder:
    """What may follow a value, by value in order: from a rung on, that and all later values."""

    rungs: list[Node] = field(default_factory=list)
    _falling: dict[int, list[int]] = field(default_factory=dict)

    def find(self, rung: int, index: int, cost: int) -> tuple[Node, int]:
        """The rung on which path number `index` from `rung` on lies, and its number there."""
        if cost not in self._falling:  # minus the paths from each rung on, ascending
            self._falling[cost] = [-node.table.get(cost, 0) for node in self.rungs]
        falling = self._falling[cost]
        place = bisect_right(falling, falling[rung] + index) - 1
        return self.rungs[place], index - (falling[place] - falling[rung])
