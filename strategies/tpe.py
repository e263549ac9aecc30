"""TPE: Optuna's tree-structured Parzen estimator over the genes."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from noahnas.space import Space
from noahnas.strategies.optuna_sampler import OptunaSampler


class TPE(OptunaSampler):
    """Models which genes good archs have, jointly, and draws where good ones are dense.

    Not for fewer than `startup` evaluations, which are draws of the paper prior, nor for many
    thousands: an ask costs time in proportion to the history.

    Source: Watanabe, arXiv:2304.11127; Bergstra et al., NeurIPS 2011.

    Raises:
        ValueError: if a number is out of range.
    """

    summary = "Optuna's multivariate TPE over the genes"

    def __init__(self, space: Space, seed: int, startup: int = 20, candidates: int = 24) -> None:
        super().__init__(space, seed, startup)
        if candidates < 1:
            raise ValueError("candidates are at least 1")
        self.candidates = candidates

    def sampler(self, seed: int) -> BaseSampler:
        """TPE with the constant liar, which keeps proposals of one batch apart."""
        return TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=True,
            n_startup_trials=1,
            n_ei_candidates=self.candidates,
        )
