"""Which genes mattered: fANOVA over every distinct architecture that was evaluated."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import create_trial

from noahnas.compare.record import Record
from noahnas.space import Space
from noahnas.space.distributions import distributions

LEAST = 20  # architectures, below which a forest says nothing
MOST = 2000  # of one supernet; of more, as many are drawn
TREES = 64


def scores_of(records: Iterable[Record]) -> dict[tuple[int, ...], float]:
    """Val accuracy of every distinct arch, by its gene indices, of searches of one supernet."""
    return {
        trial.vector: trial.result.accuracy
        for record in records
        for trial in record.trials
        if trial.images is None
    }


def importance(space: Space, scores: Mapping[tuple[int, ...], float]) -> dict[str, float] | str:
    """The share of the variance of val accuracy that each gene explains alone; or why not.

    A gene that a shallower depth switches off counts as its lowest choice. What the shares leave to
    1 is due to genes acting together. The archs are those that strategies looked at, not a uniform
    sample: a gene that all of them soon agreed on shows less than it would in the whole space.

    Source: fANOVA, Hutter, Hoos & Leyton-Brown, ICML 2014, as Optuna has it.
    """
    if len(scores) < LEAST:
        return f"{len(scores)} architectures are too few; {LEAST} at least"
    if len(set(scores.values())) == 1:
        return "all architectures scored the same"
    known = distributions(space)
    vectors = sorted(scores)
    if len(vectors) > MOST:
        rng = np.random.default_rng(0)
        vectors = [vectors[i] for i in sorted(rng.permutation(len(vectors))[:MOST])]
    names = [gene.name for gene in space.genes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
        study.add_trials(
            [
                create_trial(
                    params={k: v for k, v in zip(names, vector, strict=True) if k in known},
                    distributions=known,
                    value=scores[vector],
                )
                for vector in vectors
            ]
        )
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return {name: float(share) if math.isfinite(share) else 0.0 for name, share in found.items()}


def mean_importance(
    space: Space, by_supernet: Mapping[str, Mapping[tuple[int, ...], float]]
) -> dict[str, Any]:
    """Shares averaged over supernets, largest first; or why there are none."""
    found = {name: importance(space, scores) for name, scores in by_supernet.items()}
    reasons = [told for told in found.values() if isinstance(told, str)]
    if reasons:
        return {"reason": reasons[0]}
    shares = [told for told in found.values() if not isinstance(told, str)]
    means = {gene: float(np.mean([s[gene] for s in shares])) for gene in shares[0]}
    ordered = dict(sorted(means.items(), key=lambda item: -item[1]))
    return {
        "share": ordered,
        "rest": 1 - sum(ordered.values()),
        "by_supernet": found,
        "archs": {name: len(scores) for name, scores in by_supernet.items()},
    }
