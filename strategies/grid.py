"""Grid: every distinct feasible architecture of a small space."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from noahnas.space import Arch, Space
from noahnas.strategy import Proposal, Strategy


class Grid(Strategy):
    """Every feasible arch once, in an order that the seed shuffles.

    Cut short, it is random search over distinct architectures, each equally likely; run to the end,
    it is the whole truth about a space under the supernet's weights.

    Not for a space with more than a few thousand feasible archs: one with more than `limit` is
    refused.

    Source: none; Bergstra & Bengio, JMLR 13, 2012, say why not beyond small spaces.

    Raises:
        ValueError: if the space has more feasible archs than `limit`.
    """

    summary = "every feasible arch of a small space, once"

    def __init__(self, space: Space, seed: int, limit: int = 10_000) -> None:
        super().__init__(space, seed)
        if limit < 1:
            raise ValueError("limit is at least 1")
        size = space.exact.at_most
        if size > limit:
            beside = space.exact.reason is not None
            what = "architectures, feasible or not" if beside else "feasible architectures"
            raise ValueError(
                f"the space {space.name} has {_told(size)} {what}, more than limit={limit}: lower "
                "the budget, offer fewer dims, raise the limit, or let a strategy sample"
            )

    @cached_property
    def _order(self) -> list[Arch]:
        archs = [arch for arch in self.space.exact.every() if self.space.feasible(arch)]
        order = np.random.default_rng(self.seed).permutation(len(archs))
        return [archs[i] for i in order]

    def ask(self, n: int) -> list[Proposal]:
        """The next `n` that are not evaluated."""
        left = (Proposal(arch) for arch in self._order if arch not in self.seen)
        return [proposal for proposal, _ in zip(left, range(n), strict=False)]


def _told(size: int) -> str:
    return f"{size:,}" if size < 10**9 else f"about 10^{math.floor(math.log10(size))}"
