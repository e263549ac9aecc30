"""Random search: independent draws within the budget."""

from __future__ import annotations

from noahnas.strategy import Proposal, Strategy


class RandomSearch(Strategy):
    """Draws of the paper prior that meet the budget, without repetition.

    The baseline that every other strategy must beat. Not for the final answer when evaluations are
    cheap and many: it learns nothing from them.

    Source: Li & Talwalkar, arXiv:1902.07638.
    """

    summary = "independent draws of the paper prior within the budget; the baseline"

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` new draws."""
        rng = self.rng()
        return self.fresh(lambda _position: self.space.sample(rng)[0], n)
