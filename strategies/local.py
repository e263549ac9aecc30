"""Local search: hill climbing from the best of a few draws, again and again."""

from __future__ import annotations

from collections.abc import Sequence

from noahnas.space import Arch, Space
from noahnas.strategy import Proposal, Strategy, Trial


class LocalSearch(Strategy):
    """Climbs from arch to arch, one step of one gene at a time, and restarts where it is stuck.

    A climb starts at the best of `draws` draws of the paper prior. It evaluates neighbours
    (`Space.neighbours`) in random order and moves to the first that ranks higher. A neighbour
    beyond the budget is brought back by lowering other genes at random (`Space.shrink`): so a climb
    goes along the budget. After as many trials without a move as there were neighbours to try, a
    new climb begins.

    Not where the val split is small and architectures are alike: one step changes less than the
    noise, and a lucky score holds a climb up.

    Source: White et al., arXiv:2005.02960.

    Raises:
        ValueError: if draws are below 1.
    """

    summary = "hill climbing over neighbours, from the best of a few draws; restarts"

    def __init__(self, space: Space, seed: int, draws: int = 10) -> None:
        super().__init__(space, seed)
        if draws < 1:
            raise ValueError("draws are at least 1")
        self.draws = draws
        self._drawn = 0  # trials of the present climb's start
        self._at: Trial | None = None  # where the climb stands
        self._near: list[Arch] = []  # neighbours of that arch
        self._left = 0  # trials without a move, after which the climb is stuck
        self._known: set[Arch] = set()

    def tell(self, trials: Sequence[Trial]) -> None:
        """Follow the climb, trial by trial."""
        super().tell(trials)
        for trial in trials:
            self._known.add(trial.arch)
            moved = self._at is None or trial.result.rank > self._at.result.rank
            self._at = trial if moved else self._at
            if self._drawn < self.draws:
                self._drawn += 1
                moved = self._drawn == self.draws
            else:
                self._left -= 1
            if moved and self._drawn == self.draws and self._at:
                self._near = self.space.neighbours(self._at.arch)
                self._left = sum(arch not in self._known for arch in self._near)
            if self._drawn == self.draws and self._left <= 0:
                self._drawn, self._at = 0, None

    def ask(self, n: int) -> list[Proposal]:
        """Draws at the start of a climb, then neighbours of where it stands."""
        rng = self.rng()
        if self._drawn < self.draws:
            found = self.fresh(lambda _: self.space.draw(rng), min(n, self.draws - self._drawn))
        else:
            near = [self._near[i] for i in rng.permutation(len(self._near))]

            def step(_position: int) -> Arch:
                arch = near.pop() if near else self._near[rng.integers(len(self._near))]
                return self.space.shrink(arch, rng)

            found = self.fresh(step, n, tries=2 * len(near) + 1) if near else []
        return found or self.fresh(lambda _: self.space.sample(rng)[0], n)
