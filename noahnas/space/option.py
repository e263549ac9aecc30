"""What a block may hold next, and the state that it leads to: the words of the automata."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from noahnas.space.reach import Reach
from noahnas.space.rules import Comparison, Ordered, Term
from noahnas.space.schema import Value

Clause = tuple[Comparison | None, Comparison | None]  # a block breaks it: first true, second false
View = tuple[tuple[Term, Value], ...]
PRESENT = "(present)"  # what a rule about the number of modules asks of one


class State(NamedTuple):
    """All of the blocks before that decides what may follow."""

    reach: Reach
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

    @cached_property
    def dims(self) -> list[int]:
        """The dims of its members, where each way is a dim."""
        return [dim for member in self.members for dim in member.dims]


@dataclass(frozen=True)
class Member:
    """Choices of one block that differ in nothing that counts: classes of dims and attributes."""

    dims: tuple[int, ...]
    fresh: bool  # whether the dim is chosen here, rather than in an earlier block of its group
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
    dims: tuple[Comparison | Ordered, ...] = ()  # what any rule says of its dims
