"""Architectures as paths: block by block, each distinct one is exactly one path of an automaton.

Its state after some blocks is what may follow: the depths and tied dims that are left (`reach`),
attributes of groups that are open, and what order rules and rules about depths look back at. Dims
and values that nothing tells apart are one choice with many members, so that a range of a thousand
dims takes no longer than one dim where neither cost nor rules distinguish them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from noahnas.space.alike import Classes, Price, dims_alike
from noahnas.space.genes import Part
from noahnas.space.option import PRESENT, Limits, Member, Option, Pick, State, View
from noahnas.space.reach import Reach, Reaches
from noahnas.space.rules import ORDERS, broken
from noahnas.space.schema import Value
from noahnas.space.work import Work

Known = tuple[int, Reach, tuple[int | None, ...], int]  # block; state without order
DIM_WORK, OPTION_WORK = 15, 40  # what looking at a dim, and at each choice with it, costs in sums


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

    def __post_init__(self) -> None:
        part = self.part
        self._reaches = Reaches(part)
        counts = self.limits.counts
        self._most = max(counts, default=0) if counts is not None else None
        self._names = list(part.attributes)
        self._groups = [
            {b: group for group in part.attribute_groups[name] for b in group}
            for name in self._names
        ]
        self._tied = any(len(group) > 1 for group in part.groups)
        self._dim_groups = {b: group for group in part.groups for b in group}
        self._rows: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        self._prices: dict[tuple[int, tuple[int, ...]], int] = {}
        self._best_dims: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        terms = {t for clause in self.limits.clauses for c in clause if c for t in c.terms}
        terms |= {*self.limits.viewed, *(rule.term for rule in self.limits.orders)}
        self._terms = [t for t in sorted(terms, key=str) if t.module == part.name]
        self._orders = [(rule.term, ORDERS[rule.order]) for rule in self.limits.orders]

    @property
    def plain(self) -> bool:
        """Whether an option's ways are its dims, and nothing else of a block is to be told."""
        return not self._names and not self._tied

    @property
    def start(self) -> State:
        """The state before the first block."""
        lasts = (None,) * len(self.limits.orders)
        return State(self._reaches.start, (None,) * len(self._names), lasts, 0)

    def accepts(self, state: State) -> bool:
        """Whether what ends in this state is an architecture."""
        return self.limits.counts is None or state.had in self.limits.counts

    def _row(self, block: int, work: Work) -> list[tuple[int, ...]]:
        """The classes of dims that a block may have, none among them."""
        dims = self.part.choices[block]
        if dims not in self._rows:
            # One dim of a class stands for it, unless it has a price of its own.
            apart = self.price is not None and (
                self.only is None or (self._tied and bool(self._names))
            )
            self._rows[dims] = dims_alike(dims, self.limits.dims, self.part.name, apart, work)
        return self._rows[dims]

    # --- what a block may hold ---------------------------------------------------------------

    def unordered(self, block: int, state: State, work: Work) -> tuple[Option | None, list[Option]]:
        """The option of no dim where there is order, and all others; no order is applied.

        Raises:
            UncountableError: if finding them takes too long.
        """
        reach, picked, _, had = state
        key = (block, reach, picked, had)
        if key not in self.known:
            self.known[key] = self._after(block, reach, picked, had, work)
        absent, found = self.known[key]
        if self._most is not None and had >= self._most:  # no more blocks may have it
            found = [o for o in found if o.state.had == had]
        if absent is not None:
            absent = Option(
                absent.price,
                absent.state._replace(lasts=state.lasts),
                absent.view,
                absent.members,
                absent.ways,
            )
        return absent, found

    def options(self, block: int, state: State, work: Work) -> list[Option]:
        """What this block may hold after `state`, merged where nothing tells it apart.

        Raises:
            UncountableError: if that takes too long.
        """
        absent, found = self.unordered(block, state, work)
        if not self._orders:
            return found
        work.spend(len(found))
        for i, ((_, in_order), before) in enumerate(zip(self._orders, state.lasts, strict=True)):
            if before is not None:
                found = [
                    o for o in found if (now := o.state.lasts[i]) is None or in_order(before, now)
                ]
        return found if absent is None else [absent, *found]

    @property
    def ladder(self) -> str | None:
        """The order of its one order rule; None if there is none, or more."""
        return self.limits.orders[0].order if len(self._orders) == 1 else None

    def _after(
        self,
        block: int,
        reach: Reach,
        picked: tuple[int | None, ...],
        had: int,
        work: Work,
    ) -> tuple[Option | None, list[Option]]:
        """The option of no dim where there is order among dims, and all others, order apart."""
        absent: dict[tuple[int, State, View], list[Member]] = {}
        merged: dict[tuple[int, State, View], list[Member]] = {}
        apart = bool(self._orders)
        picks = self._picks(block, picked, work)
        for dims in self._row(block, work):
            dim = dims[0]
            work.spend(DIM_WORK)
            after = self._reaches.next(block, reach, dim)
            if not after.possible:
                continue
            fresh = dim not in reach.held
            into = merged if dim or not apart else absent
            work.spend(OPTION_WORK * len(picks) if dim else 0)
            for pick in picks if dim else [self._none(block, picked)]:
                found = self._seen(dim, pick.picks)
                if found is None:
                    continue
                shown, lasts = found
                count = had + (dim > 0 and self.limits.counts is not None)
                state = State(after, pick.picked, lasts, count)
                price, held = self._priced(dims, pick.classes, work)
                ways = pick.ways * len(held) if fresh else pick.ways
                key = (price, state, shown)
                into.setdefault(key, []).append(Member(held, fresh, pick.picks, ways))
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

    def _priced(
        self, dims: tuple[int, ...], classes: tuple[int, ...], work: Work
    ) -> tuple[int, tuple[int, ...]]:
        """What a class of dims costs, and which of them; with `only`, the best of them."""
        if len(dims) == 1 or self.price is None:
            return self._price(dims[0], classes), dims
        if (dims, classes) not in self._best_dims:
            work.spend(DIM_WORK * len(dims))
            best = max if self.only == "dearest" else min
            self._best_dims[dims, classes] = best(dims, key=lambda d: self._price(d, classes))
        dim = self._best_dims[dims, classes]
        return self._price(dim, classes), (dim,)

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

    def _seen(
        self, dim: int, picks: Sequence[tuple[int, int, bool]]
    ) -> tuple[View, tuple[Value, ...]] | None:
        """What rules between modules, and order, see of a choice; None if it breaks a rule."""
        lasts: tuple[Value, ...] = (None,) * len(self._orders)
        if not self._terms:
            return (), lasts
        known: dict[str, Value] = {"dim": dim, PRESENT: dim > 0}
        known |= {self._names[a]: self.classes[a][c][0] for a, c, _ in picks}
        seen = {term: known.get(term.attribute) for term in self._terms}
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
            classes: Iterable[int] = range(len(self.classes[a])) if before is None else [before]
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

    # --- what a path holds -------------------------------------------------------------------

    def content(self, members: Sequence[tuple[Member, int]]) -> dict[str, tuple[Value, ...]]:
        """Dims and attributes of a path: in each block a member and which of its ways."""
        dims = [0] * len(members)
        rows: list[list[Value]] = [[None] * len(members) for _ in self._names]
        for block, (member, way) in enumerate(members):
            if len(member.dims) == 1:
                dims[block] = member.dims[0]
            elif member.fresh:
                way, which = divmod(way, len(member.dims))
                dims[block] = member.dims[which]
            else:
                dims[block] = next(d for b in self._dim_groups[block] if (d := dims[b]))
            for a, c, fresh in member.picks:
                if fresh:
                    way, which = divmod(way, len(self.classes[a][c]))
                    rows[a][block] = self.classes[a][c][which]
                else:
                    group = self._groups[a][block]
                    rows[a][block] = rows[a][next(b for b in group if dims[b])]
        found: dict[str, tuple[Value, ...]] = {"dim": tuple(dims)}
        for name, row in zip(self._names, rows, strict=True):
            default = self.part.defaults[name]
            if any(d and v != default for d, v in zip(dims, row, strict=True)):
                found[name] = tuple(row)
        return found
