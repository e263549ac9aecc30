"""What the scores of architectures trained alone say of a supernet's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from noahnas.evaluate import Result
from noahnas.fidelity.alone import Alone
from noahnas.ranking import Estimate, binomial_error, correlation, kendall, noise_ceiling
from noahnas.recipe import Stage
from noahnas.space import Arch

FEW = 10  # architectures, below which a bootstrap's percentiles are rough


@dataclass(frozen=True)
class Judged:
    """One architecture, scored on val under shared weights and after training alone."""

    arch: Arch
    shared: Result
    alone: tuple[Alone, ...]  # one for each seed

    @property
    def accuracy(self) -> float:
        """Trained alone: the mean over seeds of the accuracy on val, in [0, 1]."""
        return statistics.fmean(one.result.accuracy for one in self.alone)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {
            "arch": self.arch.to_dict(),
            "digest": self.arch.digest,
            "params": self.shared.params,
            "shared": self.shared.to_dict(),
            "alone": [one.result.to_dict() for one in self.alone],
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Diagnosis:
    """How well a supernet's scores on val rank architectures that were trained alone.

    Correlations are over `archs`, which were drawn at random; the winner and the median of the
    search were chosen by their scores, so they stand apart.
    """

    archs: tuple[Judged, ...]  # distinct, feasible, drawn from `prior`
    asked: int  # how many were asked for; the space may have fewer
    prior: str
    winner: Judged | None  # of the search; None if that is not finished
    median: Judged | None  # of the search: half of what it evaluated scored better
    stage: Stage  # how they were trained alone, on train
    seeds: tuple[int, ...]  # of those trainings
    images: int  # of val
    kendall: Estimate  # accuracies under shared weights, and alone
    spearman: Estimate  # the same
    by_loss: Estimate  # Kendall's, of the loss under shared weights, less being better
    by_params: Estimate  # Kendall's, of the number of parameters: what needs no supernet
    ceiling: float | None  # τ that the noise of so many images allows (`ranking.noise_ceiling`)
    agreement: float | None  # τ between seeds of training alone, mean over pairs; None for one

    @property
    def mean(self) -> float:
        """Accuracy of `archs` trained alone."""
        return statistics.fmean(one.accuracy for one in self.archs)

    @property
    def sd(self) -> float:
        """Over `archs`, of their accuracies alone."""
        return statistics.stdev(one.accuracy for one in self.archs)

    @property
    def error(self) -> float:
        """The noise of the val split: the binomial standard error of an accuracy of `mean`."""
        return binomial_error(self.mean, self.images)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against trusting this supernet, or this diagnosis of it, in words."""
        return (*_of_winner(self), *_of_ranking(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        judged = [*self.archs, *(one for one in (self.winner, self.median) if one)]
        once = {one.arch: one for one in judged}.values()
        return {
            "archs": len(self.archs),
            "prior": self.prior,
            "stage": asdict(self.stage),
            "seeds": list(self.seeds),
            "images": self.images,
            "kendall": asdict(self.kendall),
            "spearman": asdict(self.spearman),
            "kendall_by_loss": asdict(self.by_loss),
            "kendall_by_params": asdict(self.by_params),
            "ceiling": self.ceiling,
            "agreement": self.agreement,
            "mean": self.mean,
            "sd": self.sd,
            "error": self.error,
            "winner": self.winner.to_dict() if self.winner else None,
            "median": self.median.to_dict() if self.median else None,
            "warnings": list(self.warnings),
            "cost": {
                "seconds": sum(alone.seconds for one in once for alone in one.alone),
                "passes": sum(alone.passes for one in once for alone in one.alone),
            },
            "scores": [one.to_dict() for one in self.archs],
        }


def judge(
    archs: Sequence[Judged],
    winner: Judged | None,
    median: Judged | None,
    *,
    asked: int,
    prior: str,
    stage: Stage,
    seeds: Sequence[int],
    images: int,
) -> Diagnosis:
    """What the scores of architectures say of a supernet; the arguments are `Diagnosis`'s."""
    alone = [one.accuracy for one in archs]
    scores = [one.shared.accuracy for one in archs]
    by_seed = [[one.alone[i].result.accuracy for one in archs] for i in range(len(seeds))]
    between = [kendall(a, b) for a, b in combinations(by_seed, 2)]
    known = [tau for tau in between if tau is not None]
    return Diagnosis(
        archs=tuple(archs),
        asked=asked,
        prior=prior,
        winner=winner,
        median=median,
        stage=stage,
        seeds=tuple(seeds),
        images=images,
        kendall=correlation(scores, alone),
        spearman=correlation(scores, alone, "spearman"),
        by_loss=correlation([-one.shared.loss for one in archs], alone),
        by_params=correlation([one.shared.params for one in archs], alone),
        ceiling=noise_ceiling(alone, images),
        agreement=statistics.fmean(known) if known else None,
    )


# --- warnings --------------------------------------------------------------------------------


def _of_winner(found: Diagnosis) -> list[str]:
    winner, median = found.winner, found.median
    if not winner or not median:
        return ["the search of this run is not finished: there is no winner to compare"]
    if winner.arch == median.arch:
        return ["the search evaluated too few architectures: its winner is its median"]
    gap, noise = winner.accuracy - median.accuracy, found.error
    if gap >= noise:
        return []
    told = (
        f"winner and median of the search, trained alone, differ by {100 * gap:+.1f} points on "
        f"val, and the noise of its {found.images} images is {100 * noise:.1f}"
    )
    return [f"{told}: the winner is not shown to be better than the median"]


def _of_ranking(found: Diagnosis) -> list[str]:
    told, count = [], len(found.archs)
    if found.kendall.value is None:
        which = "trained alone" if found.ceiling is None else "under shared weights"
        told.append(f"all {count} architectures score the same {which}: there is nothing to rank")
    elif not found.kendall.excludes(0):
        told.append(
            f"the interval of τ includes 0: on {count} architectures this supernet is not shown to "
            "rank better than chance; more of them (--archs) narrow it"
        )
    elif found.kendall.value < 0:
        told.append("τ is below 0: this supernet ranks architectures in reverse")
    plain = found.by_params.value
    if plain is not None and plain >= (found.kendall.value or 0.0) and plain > 0:
        told.append(
            f"the number of parameters ranks these architectures no worse (τ {plain:.2f}) than "
            "this supernet does"
        )
    if found.ceiling is not None and found.sd < found.error:
        told.append(
            f"architectures trained alone differ by less than the noise of val (sd "
            f"{100 * found.sd:.1f} points, noise {100 * found.error:.1f}): no score can rank them"
        )
    if count < found.asked:
        told.append(f"the space has hardly more than these {count} architectures")
    if count < FEW:
        told.append(f"intervals of {count} architectures are rough: ask for {FEW} at least")
    return told
