"""Bandit: successive halving over validation images."""

from __future__ import annotations

from noahnas.space import Arch, Space
from noahnas.strategies.breeding import mutant
from noahnas.strategy import Proposal, Strategy, Trial


class Bandit(Strategy):
    """Scores many archs on few images, and the best of them on more and more.

    Asynchronous successive halving. Rung 0 is `images` images, each further rung `eta` times as
    many, the last of `rungs` all. Whenever an arch is among the best 1/`eta` of its rung and has
    not been scored on the next, that is proposed, the highest rung first; else a new arch on rung
    0: with probability `bred` a mutant of one of the `top` best on the highest rung that has any,
    else a draw of the paper prior. `bred=0` is successive halving alone. Only scores on as many
    images are compared, and the winner is one scored on all.

    The search charges a trial on fewer images its share of one, so that the budget in passes is
    that of other strategies, and more archs are looked at. Where the val split has fewer images
    than a rung asks for, that rung is all of them.

    Not for a small val split, where the first rung ranks noise (the standard error of an accuracy
    on 25 images is up to 10 points); not where archs are cheap to score beside asking.

    Source: Li et al., arXiv:1810.05934; Jamieson & Talwalkar, arXiv:1502.07943; breeding on top of
    halving: Awad et al., arXiv:2105.09821.

    Raises:
        ValueError: if a number is out of range.
    """

    summary = "successive halving: many archs on few images, the best of them on all"

    def __init__(
        self,
        space: Space,
        seed: int,
        images: int = 25,
        eta: int = 3,
        rungs: int = 3,
        bred: float = 0.8,
        top: int = 10,
    ) -> None:
        super().__init__(space, seed)
        if min(images, rungs, top) < 1 or eta < 2:
            raise ValueError("images, rungs and top are at least 1, eta at least 2")
        if not 0 <= bred <= 1:
            raise ValueError("bred is a probability, in [0, 1]")
        self.eta, self.bred, self.top = eta, bred, top
        self.rungs: list[int | None] = [images * eta**k for k in range(rungs - 1)]
        self.rungs.append(None)

    def ask(self, n: int) -> list[Proposal]:
        """What is promoted, then new draws; where nothing is new, the best of what is left."""
        rng, on = self.rng(), self._on()
        found = self._promoted(on, self.eta)[:n]
        parents = next((best for best in reversed(on) if best), [])[: self.top]
        rate = 2 / max(sum(len(gene.choices) > 1 for gene in self.space.genes), 2)

        def new(_position: int) -> Arch:
            if parents and rng.random() < self.bred:
                parent = parents[rng.integers(len(parents))].arch
                return mutant(self.space, parent, rng, rate, rate)
            return self.space.draw(rng)

        if len(found) < n:
            rest = n - len(found)
            draws = self.fresh(new, rest) or self.fresh(lambda _: self.space.sample(rng)[0], rest)
            found += [Proposal(proposal.arch, self.rungs[0]) for proposal in draws]
        return found or self._promoted(on, 1)[:n]

    def _promoted(self, on: list[list[Trial]], eta: int) -> list[Proposal]:
        """What is among the best 1/eta of its rung and not on the next, from the top down."""
        found: list[Proposal] = []
        for k in range(len(self.rungs) - 2, -1, -1):
            above = {trial.arch for higher in on[k + 1 :] for trial in higher}
            chosen = [trial.arch for trial in on[k][: len(on[k]) // eta]]
            found += [Proposal(a, self.rungs[k + 1]) for a in chosen if a not in above]
        return found

    def _on(self) -> list[list[Trial]]:
        """The trials of each rung, the best first; a rung beyond the split counts as the last."""
        on: list[list[Trial]] = [[] for _ in self.rungs]
        for trial in self.history:
            images = trial.proposal.images
            on[self.rungs.index(images) if images in self.rungs else -1].append(trial)
        for trials in on:
            trials.sort(key=lambda trial: trial.result.rank, reverse=True)
        return on
