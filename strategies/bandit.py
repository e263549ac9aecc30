"""Bandit: successive halving over validation images."""

from __future__ import annotations

from noahnas.space import Space
from noahnas.strategy import Proposal, Strategy, Trial


class Bandit(Strategy):
    """Scores many archs on few images, and the best of them on more and more.

    Asynchronous successive halving. Rung 0 is `images` images, each further rung `eta` times as
    many, the last of `rungs` all. Whenever an arch is among the best 1/`eta` of its rung and has
    not been scored on the next, that is proposed, the highest rung first; else a new draw of the
    paper prior on rung 0. Only scores on as many images are compared, and the winner is one scored
    on all.

    The search charges a trial on fewer images its share of one, so that the budget in passes is
    that of other strategies, and more archs are looked at. Where the val split has fewer images
    than a rung asks for, that rung is all of them.

    Not for a small val split, where the first rung ranks noise (the standard error of an accuracy
    on 25 images is up to 10 points); not where archs are cheap to score beside asking.

    Source: Li et al., arXiv:1810.05934; Jamieson & Talwalkar, arXiv:1502.07943.

    Raises:
        ValueError: if a number is out of range.
    """

    summary = "successive halving: many archs on few images, the best of them on all"

    def __init__(
        self, space: Space, seed: int, images: int = 50, eta: int = 2, rungs: int = 3
    ) -> None:
        super().__init__(space, seed)
        if images < 1 or eta < 2 or rungs < 1:
            raise ValueError("images and rungs are at least 1, eta at least 2")
        self.eta = eta
        self.rungs: list[int | None] = [images * eta**k for k in range(rungs - 1)]
        self.rungs.append(None)

    def ask(self, n: int) -> list[Proposal]:
        """What is promoted, then new draws; where nothing is new, the best of what is left."""
        rng = self.rng()
        found = self._promoted(self.eta)[:n]
        if len(found) < n:
            rest = n - len(found)
            new = self.fresh(lambda _: self.space.draw(rng), rest)
            new = new or self.fresh(lambda _: self.space.sample(rng)[0], rest)
            found += [Proposal(proposal.arch, self.rungs[0]) for proposal in new]
        return found or self._promoted(1)[:n]

    def _promoted(self, eta: int) -> list[Proposal]:
        """What is among the best 1/eta of its rung and not on the next, from the top down."""
        on = self._on()
        found: list[Proposal] = []
        for k in range(len(self.rungs) - 2, -1, -1):
            best = sorted(on[k], key=lambda trial: trial.result.rank, reverse=True)
            above = {trial.arch for higher in on[k + 1 :] for trial in higher}
            chosen = [trial.arch for trial in best[: len(best) // eta]]
            found += [Proposal(a, self.rungs[k + 1]) for a in chosen if a not in above]
        return found

    def _on(self) -> list[list[Trial]]:
        """The trials of each rung; on all images where the split had fewer than asked for."""
        on: list[list[Trial]] = [[] for _ in self.rungs]
        for trial in self.history:
            images = trial.proposal.images
            on[self.rungs.index(images) if images in self.rungs else -1].append(trial)
        return on
