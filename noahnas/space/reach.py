"""Which depths and tied dims a row of dims, read block by block, may still mean.

Gene vectors are many to one architecture: a depth may reach further than the last dim that is not
0, and ties hold only where the depth reaches. So what is kept after some blocks is the *set* of
what the genes may still be (the subset construction), in as few words as it takes.
"""

from __future__ import annotations

from typing import NamedTuple

from noahnas.space.genes import Part


class Reach(NamedTuple):
    """What the depths of a module may still be after some blocks."""

    waiting: int  # bit b: a depth that ends before block b, or that counts from the last, begins
    held: frozenset[int | None]  # dims of the open group where a depth reaches; None = any yet
    over: bool  # whether a depth may reach nothing further

    @property
    def possible(self) -> bool:
        """Whether any depth is left."""
        return bool(self.waiting or self.held or self.over)


class Reaches:
    """Steps from one `Reach` to the next, found once each.

    Args:
        part: a module on its backbone.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self._offered = [frozenset(dims) for dims in part.choices]
        self._open = [False] * part.blocks
        for group in part.groups:
            self._open[group[0] : group[-1]] = [True] * (group[-1] - group[0])
        self._steps: dict[tuple[int, Reach, int], Reach] = {}

    @property
    def start(self) -> Reach:
        """Before the first block."""
        part = self.part
        waiting = 0
        for depth in part.depths:
            waiting |= (1 << (part.blocks - depth if part.from_last else depth)) if depth else 0
        held = frozenset([None]) if waiting and not part.from_last else frozenset[int | None]()
        return Reach(waiting, held, 0 in part.depths)

    def next(self, block: int, reach: Reach, dim: int) -> Reach:
        """What is left when the block has `dim`; not `possible` if nothing is."""
        key = (block, reach, dim)
        if key not in self._steps:
            self._steps[key] = self._next(block, reach, dim)
        return self._steps[key]

    def _next(self, block: int, reach: Reach, dim: int) -> Reach:
        waiting, held, over = reach
        last = self.part.from_last
        if last and waiting >> block & 1:
            waiting ^= 1 << block
            held |= {None}
        if dim:
            over = False
            waiting = 0 if last else waiting
        if held and self._offered[block]:
            fits = dim in self._offered[block] and (None in held or dim in held)
            held = frozenset([dim]) if fits else frozenset()
        elif dim:
            held = frozenset()
        if held and not self._open[block]:
            held = frozenset([None])
        if not last:
            waiting = waiting if held else 0
            if waiting >> (block + 1) & 1:
                waiting ^= 1 << (block + 1)
                over = True
            held = held if waiting else frozenset()
        elif held and block == self.part.blocks - 1:
            held, over = frozenset(), True
        return Reach(waiting, held, over)
