"""Automata that move together, because rules between their modules look at single blocks."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

from noahnas.space.automaton import ModuleAutomaton
from noahnas.space.option import PRESENT, Clause, Member, Option, State, View
from noahnas.space.rules import AtMost, Term, broken
from noahnas.space.schema import Value
from noahnas.space.work import Work

States = tuple[State, ...]  # of automata that move together
Picked = tuple[tuple[Member, int], ...]  # of each automaton a member, and which of its ways
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
    def dims(self) -> list[tuple[int, ...]]:
        """For each way the dims of the automata, if a way of each option is a dim."""
        rows = (itertools.product(*(o.dims for o in options)) for options in self.members)
        return list(chain.from_iterable(rows))

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

    def dims_of(self, way: int) -> tuple[tuple[int, ...], ...]:
        """The dims of the automata in one way, if a way of each option is a dim."""
        return tuple((member.dims[own],) for member, own in self.pick(way))


class Joint:
    """Automata that move together.

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
        self.plain = all(a.plain for a in automata)
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
            return [self.step(o, work) for o in self.automata[0].options(block, state[0], work)]
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

    @property
    def ladder(self) -> ModuleAutomaton | None:
        """The one automaton, if it is alone and has one order rule."""
        return self.automata[0] if self._alone and self.automata[0].ladder else None

    def step(self, option: Option, work: Work) -> Step:
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
