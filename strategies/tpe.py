"""TPE: Optuna's tree-structured Parzen estimator over the genes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, create_trial

from noahnas.space import Arch, Space
from noahnas.space.distributions import distributions, indices
from noahnas.strategy import Proposal, Strategy, Trial

RETRIES = 20  # asks of the sampler for one new arch, before the ask ends early


class TPE(Strategy):
    """Models which genes good archs have, jointly, and draws where good ones are dense.

    Optuna's multivariate TPE sees each arch as its canonical gene vector of ordinal indices, from a
    study in memory that each ask builds from the history. A proposal beyond the budget, or against
    a rule, is led back gene by gene. Several asked for at once are kept apart by the constant liar.

    Not for fewer than `startup` evaluations, which are uniform draws, nor for many thousands: an
    ask costs time in proportion to the history.

    Source: Watanabe, arXiv:2304.11127; Bergstra et al., NeurIPS 2011.

    Raises:
        ValueError: if a number is out of range.
    """

    summary = "Optuna's multivariate TPE over the genes, in memory"

    def __init__(self, space: Space, seed: int, startup: int = 20, candidates: int = 24) -> None:
        super().__init__(space, seed)
        if startup < 1 or candidates < 1:
            raise ValueError("startup and candidates are at least 1")
        self.startup, self.candidates = startup, candidates
        self._distributions = distributions(space)
        self._told: list[FrozenTrial] = []

    def tell(self, trials: Sequence[Trial]) -> None:
        """Keep the trials in Optuna's form too."""
        super().tell(trials)
        self._told += [self._frozen(trial) for trial in trials]

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return create_trial(
            params=indices(self.space, trial.arch),
            distributions=dict(self._distributions),
            value=trial.result.accuracy,
        )

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` new archs from the model."""
        rng = self.rng()
        study = self._study(int(rng.integers(2**31)))

        def draw(_position: int) -> Arch:
            trial = study.ask(self._distributions)
            vector = [trial.params.get(gene.name, 0) for gene in self.space.genes]
            return self.space.shrink(self.space.decode(vector), rng)

        return self.fresh(draw, n, RETRIES) or self.fresh(lambda _: self.space.sample(rng)[0], n)

    def _study(self, seed: int) -> optuna.Study:
        """The history as a study in memory, with a sampler of this ask's own."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                multivariate=True,
                constant_liar=True,
                n_startup_trials=self.startup,
                n_ei_candidates=self.candidates,
            )
        storage = optuna.storages.InMemoryStorage()
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "tpe")
        for trial in self._told:
            storage.create_new_trial(study_id, template_trial=trial)
        return optuna.load_study(study_name="tpe", storage=storage, sampler=sampler)
