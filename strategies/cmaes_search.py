"""CMA-ES with margin: a normal distribution over the genes, adapted to what ranks well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cmaes import CMAwM
from numpy.typing import NDArray

from noahnas.space import Arch, Space
from noahnas.strategy import Proposal, Strategy, Trial

TRIES = 20  # samples for one arch that is new and feasible, before one is led back
FOUND = 5  # samples among which an arch that was told is looked for

Point = NDArray[np.float64]


class CMAES(Strategy):
    """Samples a normal distribution over gene indices and moves it towards the better half.

    The margin keeps every choice of every gene at a probability that does not vanish. Samples that
    are infeasible or known are drawn again, and at last led back to the budget at random.

    Not for choices that are words, which it takes to be in order; not for fewer evaluations than
    several times the number of genes, which its covariance needs.

    Source: Hamano et al., arXiv:2205.13482; Hansen, arXiv:1604.00772; the library cmaes.

    Raises:
        ValueError: if population or sigma is out of range.
    """

    summary = "CMA-ES with margin over the genes, as ordered numbers"

    def __init__(
        self, space: Space, seed: int, population: int | None = None, sigma: float = 0.3
    ) -> None:
        super().__init__(space, seed)
        if population is not None and population < 4:
            raise ValueError("population is at least 4")
        if not 0 < sigma <= 1:
            raise ValueError("sigma is in (0, 1], a share of each gene's range")
        self._free = [i for i, gene in enumerate(space.genes) if len(gene.choices) > 1]
        self._steps = 1 / (space.counts[self._free] - 1)  # (free genes,)
        self._model: CMAwM | None = None
        if len(self._free) > 1:
            self._model = CMAwM(
                mean=np.full(len(self._free), 0.5),
                sigma=sigma,
                bounds=np.tile([0.0, 1.0], (len(self._free), 1)),
                steps=self._steps,
                population_size=population,
            )
        self._generation: list[tuple[Point, float]] = []  # told since the model last moved

    def tell(self, trials: Sequence[Trial]) -> None:
        """Move the distribution whenever a generation is complete."""
        first = len(self.history)
        super().tell(trials)
        for position, trial in enumerate(trials, start=first):
            if self._model is None:
                return
            best, tie = trial.result.rank
            value = -best - 1e-9 * tie
            self._generation.append((self._raw(position, trial.arch), value))
            if len(self._generation) == self._model.population_size:
                self._model.tell(self._generation)
                self._generation = []

    def ask(self, n: int) -> list[Proposal]:
        """The next `n` of the present generation; never beyond its end."""
        rng = self.rng()
        found: dict[Arch, None] = {}
        if self._model:
            n = min(n, self._model.population_size - len(self._generation))
            for position in range(len(self.history), len(self.history) + n):
                arch = self._new(position, found, rng)
                if arch is None:
                    break
                found[arch] = None
        proposals = [Proposal(arch) for arch in found]
        return proposals or self.fresh(lambda _: self.space.sample(rng)[0], n)

    def _new(self, position: int, found: dict[Arch, None], rng: np.random.Generator) -> Arch | None:
        for attempt in range(2 * TRIES):
            arch = self._sample(position, attempt)[0]
            if attempt >= TRIES:
                arch = self.space.shrink(arch, rng)
            new = arch not in self.seen and arch not in found
            if new and self.space.obeys(arch) and self.space.feasible(arch):
                return arch
        return None

    def _sample(self, position: int, attempt: int) -> tuple[Arch, Point]:
        """An arch and the point (free genes,) that it was rounded from; the same whenever asked."""
        assert self._model  # callers have seen to it
        self._model.reseed_rng(
            int(np.random.default_rng([self.seed, position, attempt]).integers(2**31))
        )
        rounded, raw = self._model.ask()
        vector = np.zeros(len(self.space.genes), dtype=int)
        vector[self._free] = np.rint(rounded / self._steps)
        return self.space.decode(vector.tolist()), raw

    def _raw(self, position: int, arch: Arch) -> Point:
        """The point that an arch was rounded from, found by sampling again; else its own."""
        for attempt in range(FOUND):
            sampled, raw = self._sample(position, attempt)
            if sampled == arch:
                return raw
        return np.array(self.space.vector(arch))[self._free] * self._steps
