"""Random search: independent draws within the budget."""

from __future__ import annotations

from typing import Literal

from noahnas.space import Space
from noahnas.strategy import Proposal, Strategy


class RandomSearch(Strategy):
    """Draws that meet the budget, without repetition.

    `prior="paper"` draws as NOAH does: each depth uniform, then each dim. `prior="exact"` draws
    uniformly from the distinct feasible archs; most of them are deep.

    The baseline that every other strategy must beat. Not for the final answer when evaluations are
    cheap and many: it learns nothing from them.

    Source: Li & Talwalkar, arXiv:1902.07638.
    """

    summary = "independent draws within the budget; the baseline"

    def __init__(self, space: Space, seed: int, prior: Literal["exact", "paper"] = "paper") -> None:
        super().__init__(space, seed)
        self.prior: Literal["exact", "paper"] = prior

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` new draws."""
        rng = self.rng()
        return self.fresh(lambda _position: self.space.sample(rng, prior=self.prior)[0], n)
