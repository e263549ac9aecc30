"""What Optuna's samplers need of a strategy: the history as a study, without copies of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from noahnas.space import Arch, Space
from noahnas.space.distributions import distributions, indices
from noahnas.strategy import Proposal, Strategy, Trial

STEPS = 200  # of a random walk from a suggestion that is known to a new arch
TIE = 1e-9  # of the second part of a rank in the first: breaks ties and nothing else


class _Told(optuna.storages.InMemoryStorage):
    """A study in memory whose trials are handed out as they are.

    Optuna's own storage copies each trial, with a distribution for every gene, when it is added,
    and writes a new trial gene by gene: that took three quarters of the time of an ask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trials: list[FrozenTrial] = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [t for t in self.trials if states is None or t.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> None:
        """Samplers leave word for other processes, of which there are none."""


class OptunaSampler(Strategy):
    """Proposes what a sampler of Optuna's suggests, which is made anew for each ask.

    The sampler sees each arch as its canonical gene vector of ordinal indices, and its accuracy. A
    suggestion beyond the budget, or against a rule, is led back gene by gene at random; one that is
    known is left by a random walk, since a converged sampler suggests the same again and again.
    Several asked for at once are shown to it as running. Until `startup` trials are told, proposals
    are draws of the paper prior.
    """

    def __init__(self, space: Space, seed: int, startup: int) -> None:
        super().__init__(space, seed)
        if startup < 1:
            raise ValueError("startup is at least 1")
        self.startup = startup
        self._distributions = distributions(space)
        self._told: list[FrozenTrial] = []

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """The sampler of one ask."""

    def tell(self, trials: Sequence[Trial]) -> None:
        """Keep the trials in Optuna's form too."""
        super().tell(trials)
        for trial in trials:
            first, second = trial.result.rank
            value = first + TIE * second
            self._told.append(self._frozen(trial.arch, len(self._told), value))

    def _frozen(self, arch: Arch, number: int, value: float | None = None) -> FrozenTrial:
        frozen = create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            params=indices(self.space, arch),
            distributions=self._distributions,
            value=value,
        )
        frozen.number = number
        return frozen

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` new archs: from the sampler, or where that has none, drawn uniformly."""
        rng = self.rng()
        if len(self.history) < self.startup:
            n = min(n, self.startup - len(self.history))
            draws = self.fresh(lambda _: self.space.draw(rng), n)
            return draws or self.fresh(lambda _: self.space.sample(rng)[0], n)
        storage = _Told()
        storage.trials = list(self._told)
        study = self._study(storage, int(rng.integers(2**31)))
        asked: list[Proposal] = []
        for position in range(len(self.history), len(self.history) + n):
            arch = self._suggested(study, position, {p.arch for p in asked}, rng)
            if arch is None:
                break
            asked.append(Proposal(arch))
            storage.trials.append(self._frozen(arch, position))
        return asked or self.fresh(lambda _: self.space.sample(rng)[0], n)

    def _suggested(
        self, study: optuna.Study, position: int, asked: set[Arch], rng: np.random.Generator
    ) -> Arch | None:
        """The sampler's suggestion; if it is known, what a random walk from there finds first."""
        new = create_trial(state=TrialState.RUNNING)
        new.number = position
        found = study.sampler.sample_relative(study, new, dict(self._distributions))
        vector = [int(found.get(gene.name, 0)) for gene in self.space.genes]
        free = [i for i, gene in enumerate(self.space.genes) if len(gene.choices) > 1]
        for _ in range(STEPS):
            arch = self.space.shrink(self.space.decode(vector), rng)
            if arch not in self.seen and arch not in asked:
                return arch
            if not free:
                break
            gene = free[rng.integers(len(free))]
            vector[gene] = int(rng.integers(len(self.space.genes[gene].choices)))
        return None

    def _study(self, storage: _Told, seed: int) -> optuna.Study:
        """The history as a study in memory, with a sampler of this ask's own."""
        storage.create_new_study([StudyDirection.MAXIMIZE], "history")
        return optuna.load_study(study_name="history", storage=storage, sampler=self.sampler(seed))
