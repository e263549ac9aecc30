"""Predictor: a cheap model of what is scored screens many archs; the most promising are scored."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh, solve_triangular

from noahnas.space import Arch, Space
from noahnas.strategies.breeding import cross, mutant
from noahnas.strategy import Proposal, Strategy

Array = NDArray[np.float64]
FITTED = 200  # trials by which the kernel is chosen, spread evenly over the history
LINEAR = (0.0, 0.5, 0.9)  # shares of the linear kernel
LENGTHS = (0.5, 1.0, 2.0)  # squared length scales, in medians of squared distance
TINY = 1e-12  # variance of scores that are all the same
NOISES = (0.01, 0.1, 0.3, 1.0, 3.0)  # variances, relative to the kernel's


class Predictor(Strategy):
    """Fits a Gaussian process to the history, and asks for what it finds promising.

    Features are widths of modules in blocks and values of attributes; the kernel is a sum of a
    linear one (what blocks are worth by themselves) and a squared exponential one (what they are
    worth together), its shares, length and noise chosen by marginal likelihood. Of `candidates`
    archs — mutants and crossovers of the `top` best by prediction, and fresh draws — those are
    proposed that a draw from each one's own posterior ranks highest (independent Thompson
    sampling). The first `startup` trials are draws of the paper prior.

    Not for evaluations that take milliseconds: an ask takes 0.2 s; nor for more than
    a few thousand trials, with whose cube it grows.

    Source: White et al., BANANAS, arXiv:1910.11858; Dudziak et al., BRP-NAS, arXiv:2007.08668.
    Both use neural networks; a Gaussian process needs none, and no tuning.

    Raises:
        ValueError: if a number is below 1.
    """

    summary = "screens many archs with a Gaussian process fitted to those scored"

    def __init__(
        self, space: Space, seed: int, startup: int = 20, candidates: int = 200, top: int = 10
    ) -> None:
        super().__init__(space, seed)
        if min(startup, candidates, top) < 1:
            raise ValueError("startup, candidates and top are at least 1")
        self.startup, self.candidates, self.top = startup, candidates, top
        self._rows: list[Array] = []  # features of the history's archs, (features,) each

    def ask(self, n: int) -> list[Proposal]:
        """Draws at first, then the `n` candidates that rank highest."""
        rng = self.rng()
        if len(self.history) < self.startup:
            found = self.fresh(lambda _: self.space.draw(rng), min(n, self.startup))
            return found or self.fresh(lambda _: self.space.sample(rng)[0], n)
        while len(self._rows) < len(self.history):
            self._rows.append(features(self.space, self.history[len(self._rows)].arch))
        scores = np.array([trial.result.rank[0] for trial in self.history])  # (trials,)
        model = Model.fit(np.stack(self._rows), scores)
        archs = self._candidates(model, n, rng)
        if not archs:
            return self.fresh(lambda _: self.space.sample(rng)[0], n)
        mean, sd = model.predict(np.stack([features(self.space, arch) for arch in archs]))
        drawn = mean + sd * rng.standard_normal(len(archs))  # (candidates,)
        return [Proposal(archs[i]) for i in np.argsort(-drawn, kind="stable")[:n]]

    def _candidates(self, model: Model, n: int, rng: np.random.Generator) -> list[Arch]:
        """New feasible archs: a quarter drawn afresh, the rest bred from the best."""
        mean, _ = model.predict(np.stack(self._rows))
        best = [self.history[i].arch for i in np.argsort(-mean, kind="stable")[: self.top]]
        rate = 2 / max(sum(len(gene.choices) > 1 for gene in self.space.genes), 2)

        def candidate(position: int) -> Arch:
            parent = best[rng.integers(len(best))]
            if position % 4 == 0:
                return self.space.shrink(self.space.draw(rng), rng)
            if position % 4 == 1:
                parent = cross(self.space, parent, best[rng.integers(len(best))], rng)
            return self.space.shrink(mutant(self.space, parent, rng, rate, rate), rng)

        found = self.fresh(candidate, max(self.candidates, n), tries=20)
        return [proposal.arch for proposal in found]


@dataclass(frozen=True)
class Model:
    """A Gaussian process over features."""

    rows: Array  # (trials, features)
    share: float  # of the linear kernel
    length: float  # squared
    factor: Array  # Cholesky factor of the kernel matrix with noise, (trials, trials)
    weights: Array  # (trials,)
    size: float  # variance of the process
    mean: float
    scale: float

    @classmethod
    def fit(cls, rows: Array, scores: Array) -> Model:
        """The process whose marginal likelihood on an even part of the trials is largest."""
        mean, scale = float(scores.mean()), float(scores.std()) or 1.0
        y = (scores - mean) / scale
        part = np.unique(np.linspace(0, len(y) - 1, min(FITTED, len(y))).astype(int))
        squared = _squared(rows[part], rows[part])
        median = float(np.median(squared[np.triu_indices(len(part), 1)])) if len(part) > 1 else 1.0
        best, chosen = -np.inf, (0.5, median or 1.0, 1.0)
        for share, times in itertools.product(LINEAR, LENGTHS):
            length = (median or 1.0) * times
            values, vectors = eigh(_kernel(rows[part], rows[part], share, length))
            projected = (vectors.T @ y[part]) ** 2  # (part,)
            for noise in NOISES:
                spread = np.maximum(values, 0) + noise  # (part,)
                size = max((projected / spread).mean(), TINY)  # the best variance
                likelihood = -len(part) * np.log(size) - np.log(spread).sum()
                if likelihood > best:
                    best, chosen = likelihood, (share, length, noise)
        share, length, noise = chosen
        kernel = _kernel(rows, rows, share, length) + noise * np.eye(len(rows))
        factor, _ = cho_factor(kernel, lower=True)
        weights = cho_solve((factor, True), y)
        size = max(
            float(y @ weights) / len(y), TINY
        )  # the process's variance, of standardised scores
        return cls(rows, share, length, factor, weights, size, mean, scale)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the scores of some rows, (n,) each, without noise."""
        cross = _kernel(rows, self.rows, self.share, self.length)  # (n, trials)
        prior = self.share * (1 + (rows**2).sum(1) / rows.shape[1]) + 1 - self.share  # (n,)
        known = solve_triangular(self.factor, cross.T, lower=True)  # (trials, n)
        rest = np.maximum(prior - (known**2).sum(0), 0)  # (n,)
        return self.mean + self.scale * (cross @ self.weights), self.scale * np.sqrt(
            self.size * rest
        )


def _kernel(a: Array, b: Array, share: float, length: float) -> Array:
    """Linear and squared exponential, (rows of a, rows of b)."""
    linear = 1 + a @ b.T / a.shape[1]  # (rows of a, rows of b)
    kernel: Array = share * linear + (1 - share) * np.exp(-_squared(a, b) / (2 * length))
    return kernel


def _squared(a: Array, b: Array) -> Array:
    """Squared distances, (rows of a, rows of b)."""
    squared: Array = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squared, 0)  # rounding can leave less than 0


def features(space: Space, arch: Arch) -> Array:
    """An arch as numbers, (features,): widths as ranks in [0, 1], attributes as ranks or one-hot.

    Attributes of a module that is absent are 0.
    """
    found: list[float] = []
    values = space.values(arch)
    for name, part in space.parts.items():
        filled = part.filled(values[name])
        for block, choices in enumerate(part.choices):
            ranks = sorted({0, *choices})
            if len(ranks) > 1:
                found.append(ranks.index(int(filled["dim"][block] or 0)) / (len(ranks) - 1))
        for gene in part.genes:
            if gene.attribute in ("dim", "depth"):
                continue
            there = [filled[gene.attribute][b] for b in gene.blocks if filled["dim"][b]]
            if gene.ordered:
                rank = gene.choices.index(there[0]) + 1 if there else 0
                found.append(rank / len(gene.choices))
            else:
                found += [float(there[:1] == [choice]) for choice in gene.choices]
    return np.array(found)
