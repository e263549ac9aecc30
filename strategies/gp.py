"""GP: Optuna's Bayesian optimisation with a Gaussian process over the genes."""

from __future__ import annotations

import warnings

from optuna.samplers import BaseSampler, GPSampler

from noahnas.space import Space
from noahnas.strategies.optuna_sampler import OptunaSampler


class GP(OptunaSampler):
    """Fits a Gaussian process to what is scored and proposes where improvement is expected most.

    Matérn kernel with a length for each gene, noise fitted, log expected improvement.

    Not for hundreds of evaluations: an ask fits the process anew and takes seconds, in proportion
    to the cube of the history; `predictor` does the same at once.

    Source: Optuna's GPSampler; Ament et al., arXiv:2310.20708.

    Raises:
        ValueError: if startup is below 1.
    """

    summary = "Optuna's Gaussian process over the genes; for few, dear evaluations"

    def __init__(self, space: Space, seed: int, startup: int = 20) -> None:
        super().__init__(space, seed, startup)

    def sampler(self, seed: int) -> BaseSampler:
        """A Gaussian process that takes the scores to be noisy."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return GPSampler(seed=seed, n_startup_trials=1, deterministic_objective=False)
