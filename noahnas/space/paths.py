"""Paths of automata that move together, block by block, as a graph that is walked by number."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

from noahnas.space.automaton import PRESENT, Clause, Member, ModuleAutomaton, Option, State, View
from noahnas.space.rules import AtMost, Term, broken
from noahnas.space.schema import Value
from noahnas.space.work import Work

Table = dict[int, int]  # cost -> number of distinct choices of exactly that cost
States = tuple[State, ...]  # of automata that move together
Picked = tuple[tuple[Member, int], ...]  # of each automaton a member, and which of its ways
STRETCHES = 64  # ways through some blocks that are told apart in one look
STEP_WORK = 12  # what a step costs, in sums


@dataclass(frozen=True)
class Step:
    """An option of several automata at once."""

    price: int
    state: States
    members: tuple[tuple[Option, ...], ...]  # alternatives: an option of each automaton
    ways: int

    @cached_property
    def running(self) -> list[int]:
        """Running count of the ways of the alternatives."""
        return list(accumulate(math.prod(o.ways for o in options) for options in self.members))

    @cached_property
    def alternatives(self) -> int:
        """How many combinations of members there are."""
        return sum(math.prod(len(o.members) for o in options) for options in self.members)

    @cached_property
    def each(self) -> list[tuple[tuple[Member, ...], int]]:
        """The combinations, a member of each automaton, and in how many ways each."""
        return [
            (members, math.prod(m.ways for m in members))
            for options in self.members
            for members in itertools.product(*(o.members for o in options))
        ]

    def pick(self, way: int) -> Picked:
        """The combination in which number `way` (from 0) of its ways lies."""
        which = bisect_right(self.running, way)
        if which:
            way -= self.running[which - 1]
        found = []
        for option in self.members[which]:
            way, own = divmod(way, option.ways)
            member = bisect_right(option.running, own)
            found.append((option.members[member], own - (member and option.running[member - 1])))
        return tuple(found)


class Joint:
    """Automata that move together, because rules between their modules look at single blocks.

    Args:
        automata: of the modules.
        clauses: that no block may break.
        at_most: how many of the modules a block may have.
        steps: of options of one automaton that is alone, by their ids, if others found some.
    """

    def __init__(
        self,
        automata: Sequence[ModuleAutomaton],
        clauses: Sequence[Clause],
        at_most: Sequence[AtMost],
        steps: dict[int, Step] | None = None,
    ) -> None:
        self.automata = list(automata)
        self.clauses, self.at_most = list(clauses), list(at_most)
        self._alone = len(automata) == 1 and not clauses and not at_most
        self._steps = {} if steps is None else steps
        self._options: dict[tuple[int, int, State], dict[View, list[Option]]] = {}

    @property
    def start(self) -> States:
        """The state before the first block."""
        return tuple(a.start for a in self.automata)

    def accepts(self, state: States) -> bool:
        """Whether what ends in this state is an architecture."""
        return all(a.accepts(s) for a, s in zip(self.automata, state, strict=True))

    def _of(self, which: int, block: int, state: State, work: Work) -> dict[View, list[Option]]:
        """What one automaton may do, by what the rules between modules see of it."""
        key = (which, block, state)
        if key not in self._options:
            found: dict[View, list[Option]] = {}
            for option in self.automata[which].options(block, state, work):
                found.setdefault(option.view, []).append(option)
            self._options[key] = found
        return self._options[key]

    def steps(self, block: int, state: States, work: Work) -> list[Step]:
        """What the block may hold after `state`."""
        if self._alone:
            return [self._step(o, work) for o in self.automata[0].options(block, state[0], work)]
        rows = [self._of(i, block, s, work) for i, s in enumerate(state)]
        work.spend(STEP_WORK * math.prod(len(row) for row in rows))
        merged: dict[tuple[int, States], list[tuple[Option, ...]]] = {}
        for views in itertools.product(*rows):
            if not self._allowed(views):
                continue
            seen = [row[view] for row, view in zip(rows, views, strict=True)]
            work.spend(STEP_WORK * math.prod(len(options) for options in seen))
            for options in itertools.product(*seen):
                key = (sum(o.price for o in options), tuple(o.state for o in options))
                merged.setdefault(key, []).append(options)
        return [
            Step(price, after, tuple(members), sum(math.prod(o.ways for o in m) for m in members))
            for (price, after), members in merged.items()
        ]

    def _step(self, option: Option, work: Work) -> Step:
        """The step of one automaton that is alone."""
        work.spend(1)
        found = self._steps.get(id(option))
        if found is None:
            work.spend(STEP_WORK)
            found = Step(option.price, (option.state,), ((option,),), option.ways)
            self._steps[id(option)] = found  # which keeps the option, and with it its id
        return found

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
    step: Step | None = None  # one block with too many ways to tell them apart beforehand

    def then(self, step: Step, node: Node) -> list[Stretch]:
        """This stretch with one more block, for each combination of members."""
        return [
            Stretch(
                tuple((*d, m.dim) for d, m in zip(self.dims, members, strict=True)),
                (*self.members, (members, ways)),
                self.ways * ways,
                node,
                self.cost - step.price,
            )
            for members, ways in step.each
        ]

    def dims_of(self, way: int) -> tuple[tuple[int, ...], ...]:
        """Of each automaton, in one of the ways of its one step."""
        assert self.step is not None  # what has none holds them
        return tuple((member.dim,) for member, _ in self.step.pick(way))

    def blocks_of(self, way: int) -> list[Picked]:
        """What each block holds in one of its ways."""
        if self.step is not None:
            return [self.step.pick(way)]
        found = []
        for members, ways in self.members:
            way, own = divmod(way, ways)
            picked = []
            for member in members:
                own, which = divmod(own, member.ways)
                picked.append((member, which))
            found.append(tuple(picked))
        return found


class Node:
    """A state after some blocks, and the ways on from it."""

    __slots__ = ("_walk", "bits", "ends", "high", "low", "on", "table")

    def __init__(self) -> None:
        self.on: list[tuple[Step, Node]] = []
        self.ends = False
        self.low, self.high = math.inf, -math.inf  # of the costs of what may follow
        self.table: Table = {}
        self.bits = 1  # of the longest number in it
        self._walk: dict[int, tuple[list[int], list[tuple[Stretch, int]]]] = {}

    def walk(self, cost: int, width: int) -> tuple[list[int], list[tuple[Stretch, int]]]:
        """Stretches that a path of exactly `cost` may begin with, and running counts of paths.

        A stretch is as many blocks as there are at most `STRETCHES` ways through.
        """
        found = self._walk.get(cost)
        if found is None:
            pairs = [(s, s.node.table[s.cost]) for s in self._stretches(cost, width)]
            found = (list(accumulate(s.ways * after for s, after in pairs)), pairs)
            self._walk[cost] = found
        return found

    def _stretches(self, cost: int, width: int) -> list[Stretch]:
        stretches = [Stretch(((),) * width, (), 1, self, cost)]
        while stretches[0].node.on:
            on = [
                (stretch, step, node)
                for stretch in stretches
                for step, node in stretch.node.on
                if stretch.cost - step.price in node.table
            ]
            if sum(step.alternatives for _, step, _ in on) > STRETCHES:
                if stretches[0].members:
                    break
                return [Stretch((), (), st.ways, n, cost - st.price, st) for _, st, n in on]
            stretches = [longer for s, step, node in on for longer in s.then(step, node)]
        return stretches
