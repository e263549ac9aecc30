"""Architectures as paths: block by block, each distinct one is exactly one path of an automaton.

Gene vectors are many to one architecture: a depth may reach further than the last dim that is not
0, and ties hold only where the depth reaches. So the state after some blocks is the *set* of what
the genes may still be (the subset construction): which depths remain, and the value of the group
that the block shares with the next. Order rules and depths that rules ask for add to the state.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from noahnas.space.alike import Classes, Price
from noahnas.space.genes import Part
from noahnas.space.rules import ORDERS, Comparison, Ordered, Term, broken
from noahnas.space.schema import Value
from noahnas.space.work import Work

Clause = tuple[Comparison | None, Comparison | None]  # a block breaks it: first true, second false
Reach = tuple[int, int, int | None]  # blocks that a depth may still reach, the open group's dim
View = tuple[tuple[Term, Value], ...]
Known = tuple[int, frozenset[Reach], tuple[int | None, ...], int]  # block; state without order
PRESENT = "(present)"  # what a rule about the number of modules asks of one
DIM_WORK, OPTION_WORK = 10, 25  # what looking at a dim, and at each choice with it, costs in sums


class State(NamedTuple):
    """All of the blocks before that decides what may follow."""

    reaches: frozenset[Reach]
    picked: tuple[int | None, ...]  # class of each attribute in the group that is open
    lasts: tuple[Value, ...]  # for each order rule, the value in the last block with the module
    had: int  # number of blocks with the module, where rules ask for it


@dataclass(frozen=True)
class Option:
    """What a block may hold next, all of one price and with one state after it."""

    price: int
    state: State
    view: View  # values of the terms that rules between modules ask for
    members: tuple[Member, ...]
    ways: int

    @cached_property
    def running(self) -> list[int]:
        """Running count of the ways of its members."""
        return list(itertools.accumulate(member.ways for member in self.members))


@dataclass(frozen=True)
class Member:
    """Choices of one block that differ in nothing that counts: one dim, classes of attributes."""

    dim: int
    picks: tuple[tuple[int, int, bool], ...]  # attribute, its class, whether it is chosen here
    ways: int


class Pick(NamedTuple):
    """Classes of the attributes in one block."""

    picks: tuple[tuple[int, int, bool], ...]  # as in a Member
    classes: tuple[int, ...]
    picked: tuple[int | None, ...]  # after the block
    ways: int


@dataclass(frozen=True)
class Limits:
    """What rules ask of one module."""

    counts: frozenset[int] | None = None  # of blocks that have it
    orders: tuple[Ordered, ...] = ()
    clauses: tuple[Clause, ...] = ()
    viewed: tuple[Term, ...] = ()  # what rules between modules ask for
    mentioned: frozenset[str] = frozenset()  # attributes that any rule asks for


@dataclass
class ModuleAutomaton:
    """The distinct choices of one module over the blocks.

    Args:
        part: the module on its backbone.
        price: what a dim costs in one block; None if that has no meaning.
        limits: what rules ask of it.
        classes: of each attribute's choices, those together that nothing tells apart.
        known: options found already; automata that differ in `limits.counts` alone share them.
        only: "cheapest" or "dearest" keeps, of what leads to the same, that alone.
    """

    part: Part
    price: Price | None
    limits: Limits
    classes: list[Classes]
    only: str | None = None
    known: dict[Known, tuple[Option | None, list[Option]]] = field(default_factory=dict)
    _steps: dict[tuple[int, frozenset[Reach], int], frozenset[Reach]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        part = self.part
        self._open = [any(g[0] <= b < g[-1] for g in part.groups) for b in range(part.blocks)]
        self._offered = [frozenset(dims) for dims in part.choices]
        counts = self.limits.counts
        self._most = max(counts, default=0) if counts is not None else None
        self._names = list(part.attributes)
        self._groups = [
            {b: group for group in part.attribute_groups[name] for b in group}
            for name in self._names
        ]
        self._prices: dict[tuple[int, tuple[int, ...]], int] = {}
        terms = {t for clause in self.limits.clauses for c in clause if c for t in c.terms}
        terms |= {*self.limits.viewed, *(rule.term for rule in self.limits.orders)}
        self._terms = [t for t in sorted(terms, key=str) if t.module == part.name]
        self._orders = [(rule.term, ORDERS[rule.order]) for rule in self.limits.orders]

    @property
    def start(self) -> State:
        """The state before the first block."""
        reaches: frozenset[Reach] = frozenset(
            (*self._clipped(self.part.reach(depth), 0), None) for depth in self.part.depths
        )
        return State(reaches, (None,) * len(self._names), (None,) * len(self.limits.orders), 0)

    def accepts(self, state: State) -> bool:
        """Whether what ends in this state is an architecture."""
        return self.limits.counts is None or state.had in self.limits.counts

    @staticmethod
    def _clipped(reached: range, after: int) -> tuple[int, int]:
        """The blocks from `after` on that are reached; (0, 0) when there are none."""
        start, stop = max(reached.start, after), reached.stop
        return (start, stop) if start < stop else (0, 0)

    def _next(self, block: int, reaches: frozenset[Reach], dim: int) -> frozenset[Reach]:
        """What depths and group values remain when this block has `dim`."""
        key = (block, reaches, dim)
        if key not in self._steps:
            found: set[Reach] = set()
            offered = self._offered[block]
            for start, stop, value in reaches:
                here = start <= block < stop and bool(offered)
                if dim not in offered or value not in (None, dim) if here else dim:
                    continue
                kept = (dim if here else value) if self._open[block] else None
                found.add((*self._clipped(range(start, stop), block + 1), kept))
            self._steps[key] = frozenset((0, 0, None) if r[1] == 0 else r for r in found)
        return self._steps[key]

    def options(self, block: int, state: State, work: Work) -> list[Option]:
        """What this block may hold after `state`, merged where nothing tells it apart.

        Raises:
            UncountableError: if that takes too long.
        """
        reaches, picked, lasts, had = state
        key = (block, reaches, picked, had)
        if key not in self.known:
            self.known[key] = self._after(block, reaches, picked, had, work)
        absent, found = self.known[key]
        if self._most is not None and had >= self._most:  # no more blocks may have it
            found = [o for o in found if o.state.had == had]
        if not self._orders:
            return found
        work.spend(len(found))
        for i, ((_, in_order), before) in enumerate(zip(self._orders, lasts, strict=True)):
            if before is not None:
                found = [
                    o for o in found if (now := o.state.lasts[i]) is None or in_order(before, now)
                ]
        if absent is None:
            return found
        absent = replace(absent, state=absent.state._replace(lasts=lasts))
        return self._merged(absent, found)

    def _merged(self, absent: Option, found: list[Option]) -> list[Option]:
        """The options of a dim, and that of none in its place among them."""
        lasts = absent.state.lasts
        same = next(
            (
                o
                for o in found
                if o.state.lasts == lasts and o.state == absent.state and o.view == absent.view
            ),
            None,
        )
        if self.only is None:
            if same and same.price == absent.price:
                members = absent.members + same.members
                absent = replace(absent, members=members, ways=absent.ways + same.ways)
                found = [o for o in found if o is not same]
            return [absent, *found]
        dearest = self.only == "dearest"
        if same:
            if same.price > absent.price if dearest else same.price < absent.price:
                return found
            found = [o for o in found if o is not same]
        return sorted([absent, *found], key=lambda o: o.price, reverse=dearest)

    def _after(
        self,
        block: int,
        reaches: frozenset[Reach],
        picked: tuple[int | None, ...],
        had: int,
        work: Work,
    ) -> tuple[Option | None, list[Option]]:
        """The option of no dim where there is order among dims, and all others, order apart."""
        absent: dict[tuple[int, State, View], list[Member]] = {}
        merged: dict[tuple[int, State, View], list[Member]] = {}
        apart = bool(self._orders)
        picks = self._picks(block, picked, work)
        for dim in sorted({0, *self.part.choices[block]}):
            work.spend(DIM_WORK)
            after = self._next(block, reaches, dim)
            if not after:
                continue
            into = merged if dim or not apart else absent
            work.spend(OPTION_WORK * len(picks) if dim else 0)
            for pick in picks if dim else [self._none(block, picked)]:
                found = self._seen(dim, pick.picks)
                if found is None:
                    continue
                shown, lasts = found
                count = had + (dim > 0 and self.limits.counts is not None)
                state = State(after, pick.picked, lasts, count)
                key = (self._price(dim, pick.classes), state, shown)
                into.setdefault(key, []).append(Member(dim, pick.picks, pick.ways))
        return next(iter(self._best(absent)), None), self._best(merged)

    def _best(self, merged: Mapping[tuple[int, State, View], list[Member]]) -> list[Option]:
        """The options, or with `only` the cheapest or dearest of what leads to the same."""
        found = [
            Option(price, state, view, tuple(members), sum(m.ways for m in members))
            for (price, state, view), members in merged.items()
        ]
        if self.only is None:
            return found
        best: dict[tuple[State, View], Option] = {}
        for option in sorted(found, key=lambda o: o.price, reverse=self.only == "dearest"):
            best.setdefault((option.state, option.view), option)
        return list(best.values())

    def _seen(
        self, dim: int, picks: Sequence[tuple[int, int, bool]]
    ) -> tuple[View, tuple[Value, ...]] | None:
        """What rules between modules, and order, see of a choice; None if it breaks a rule."""
        lasts: tuple[Value, ...] = (None,) * len(self._orders)
        if not self._terms:
            return (), lasts
        seen = self._view(dim, {self._names[a]: self.classes[a][c][0] for a, c, _ in picks})
        if any(broken(first, second, seen) for first, second in self.limits.clauses):
            return None
        if dim:
            lasts = tuple(seen[term] for term, _ in self._orders)
        return tuple((term, seen[term]) for term in self.limits.viewed), lasts

    def _none(self, block: int, picked: Sequence[int | None]) -> Pick:
        """The pick of a block without the module."""
        after = tuple(
            None if block in groups and groups[block][-1] == block else p
            for p, groups in zip(picked, self._groups, strict=True)
        )
        return Pick((), (), after, 1)

    def _picks(self, block: int, picked: Sequence[int | None], work: Work) -> list[Pick]:
        """Classes that the attributes may have in a block with a dim: open ones are chosen here."""
        rows: list[list[tuple[int, int, bool]]] = []
        for a, before in enumerate(picked):
            classes = range(len(self.classes[a])) if before is None else [before]
            rows.append([(a, c, before is None) for c in classes])
        work.spend(OPTION_WORK * math.prod(len(row) for row in rows))
        found = []
        for picks in itertools.product(*rows):
            after = tuple(
                c if block in groups and groups[block][-1] > block else None
                for (_, c, _), groups in zip(picks, self._groups, strict=True)
            )
            ways = math.prod(len(self.classes[a][c]) for a, c, fresh in picks if fresh)
            found.append(Pick(picks, tuple(c for _, c, _ in picks), after, ways))
        return found

    def _view(self, dim: int, values: Mapping[str, Value]) -> dict[Term, Value]:
        """What the rules ask for of a block."""
        known = {"dim": dim, PRESENT: dim > 0} | dict(values)
        return {term: known.get(term.attribute) for term in self._terms}

    def _price(self, dim: int, classes: tuple[int, ...]) -> int:
        if not dim or self.price is None:
            return 0
        key = (dim, classes)
        if key not in self._prices:
            values = {
                name: self.classes[a][c][0]
                for a, (name, c) in enumerate(zip(self._names, classes, strict=True))
            }
            self._prices[key] = self.price(dim, values)
        return self._prices[key]

    def content(self, members: Sequence[tuple[Member, int]]) -> dict[str, tuple[Value, ...]]:
        """Dims and attributes of a path: in each block a member and which of its ways."""
        dims = tuple(member.dim for member, _ in members)
        found: dict[str, tuple[Value, ...]] = {"dim": dims}
        if not self._names:
            return found
        rows: list[list[Value]] = [[None] * len(dims) for _ in self._names]
        for block, (member, way) in enumerate(members):
            for a, c, fresh in member.picks:
                if fresh:
                    way, which = divmod(way, len(self.classes[a][c]))
                    rows[a][block] = self.classes[a][c][which]
                else:
                    group = self._groups[a][block]
                    before = next(b for b in group if members[b][0].dim)
                    rows[a][block] = rows[a][before]
        for name, row in zip(self._names, rows, strict=True):
            default = self.part.defaults[name]
            if any(d and v != default for d, v in zip(dims, row, strict=True)):
                found[name] = tuple(row)
        return found
