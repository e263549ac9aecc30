"""Quasi-random search: a Sobol sequence over the genes."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import qmc

from noahnas.space import Arch, Space
from noahnas.strategy import TRIES, Proposal, Strategy

MOST = 21201  # dimensions for which SciPy has a Sobol sequence
CHUNK = 64  # points drawn at a time


class QMC(Strategy):
    """Draws of the paper prior that cover the space more evenly than independent ones.

    A scrambled Sobol sequence with a dimension for each gene that has a choice; what is infeasible
    or was there before is passed over. It learns nothing from scores.

    Not for large spaces under few trials: evenness shows where there are many times more points
    than genes.

    Source: Bergstra & Bengio, JMLR 13, 2012, section 4; Owen, arXiv:2008.08051.

    Raises:
        ValueError: if the space has too many genes for such a sequence.
    """

    summary = "quasi-random draws: a scrambled Sobol sequence over the genes"

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space, seed)
        self._free = [i for i, gene in enumerate(space.genes) if len(gene.choices) > 1]
        if len(self._free) > MOST:
            raise ValueError(f"{len(self._free)} genes with a choice; at most {MOST}")
        self._sequence: qmc.Sobol | None = None
        self._found: dict[Arch, None] = {}  # feasible archs, in the order of the sequence

    def ask(self, n: int) -> list[Proposal]:
        """The next `n` feasible archs of the sequence; where those end, exact draws."""
        wanted = len(self.history) + n
        misses = 0
        while self._free and len(self._found) < wanted and misses < TRIES:
            before = len(self._found)
            for arch in self._points():
                if self.space.obeys(arch) and self.space.feasible(arch):
                    self._found[arch] = None
            misses = 0 if len(self._found) > before else misses + CHUNK
        left = [Proposal(arch) for arch in self._found if arch not in self.seen][:n]
        rng = self.rng()
        return left or self.fresh(lambda _: self.space.sample(rng)[0], n)

    def _points(self) -> list[Arch]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # balance needs powers of two
            if self._sequence is None:
                self._sequence = qmc.Sobol(len(self._free), rng=np.random.default_rng(self.seed))
            points = self._sequence.random(CHUNK)  # (CHUNK, free genes) in [0, 1)
        vectors = np.zeros((CHUNK, len(self.space.genes)), dtype=int)
        vectors[:, self._free] = points * self.space.counts[self._free]
        return [self.space.decode(vector) for vector in vectors.tolist()]
