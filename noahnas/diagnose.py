"""Is there anything to search? Whether architectures differ by more than noise."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np

from noahnas.data import Task
from noahnas.evaluate import evaluate_batch
from noahnas.space import Space
from noahnas.supernet import Supernet

ARCHS = 30  # random feasible ones, to see how far their scores spread


@dataclass(frozen=True)
class Spread:
    """How far the supernet's val accuracies of random feasible archs lie apart.

    Where `sd` is below `error`, a search on this split ranks noise.
    """

    mean: float
    sd: float  # over `archs` architectures
    error: float  # binomial standard error of an accuracy of `mean` on this val split
    chance: float  # accuracy on it of always answering its commonest class
    learned: bool  # whether `mean` is above `chance` by more than `error`
    archs: int
    passes: int
    seconds: float


def spread(net: Supernet, space: Space, task: Task, seed: int = 0) -> Spread:
    """Score random feasible archs (paper prior) on val under the shared weights."""
    began = time.perf_counter()
    archs = space.sample(np.random.default_rng([seed, ARCHS]), ARCHS, prior="paper")
    results = evaluate_batch(net, archs, task)
    accuracies = [result.accuracy for result in results]
    mean = statistics.fmean(accuracies)
    labels = task.data.val.labels  # (n)
    error = math.sqrt(mean * (1 - mean) / len(labels))
    chance = labels.bincount().max().item() / len(labels)
    return Spread(
        mean=mean,
        sd=statistics.stdev(accuracies),
        error=error,
        chance=chance,
        learned=mean > chance + error,
        archs=ARCHS,
        passes=sum(result.passes for result in results),
        seconds=time.perf_counter() - began,
    )
