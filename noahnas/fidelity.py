"""Is a run's supernet any good? Its scores beside those of architectures trained alone."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from noahnas.alone import Alone, train_all
from noahnas.errors import RunError, unknown
from noahnas.evaluate import Result, evaluate, latency
from noahnas.export import load_trained
from noahnas.loaded import Loaded, reload
from noahnas.pipeline import STAGES, SUPERNET
from noahnas.progress import Progress, Report, silent
from noahnas.ranking import Estimate, binomial_error, correlation, kendall, noise_ceiling
from noahnas.recipe import Stage
from noahnas.rundir import RunDirectory
from noahnas.space import Arch, Space
from noahnas.strategy import TRIES
from noahnas.study import Study

FOLDER = "diagnose"  # of a run
ARCHS = 20  # drawn and trained, unless told otherwise
LEAST = 3  # of which a ranking can be told at all
FEW = 10  # below which a bootstrap's percentiles are rough

Prior = Literal["paper", "exact"]


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
        return tuple([*_of_winner(self), *_of_ranking(self)])

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


def diagnose(
    path: Path,
    *,
    archs: int = ARCHS,
    prior: Prior = "paper",
    epochs: int | None = None,
    seeds: Sequence[int] = (),
    report: Report = silent,
) -> Diagnosis:
    """Train architectures alone and compare what they score with what the run's supernet says.

    The architectures are drawn within the run's budget; the winner of its search and the median one
    are trained beside them. Each is trained on train from the pretrained backbone, as the run's
    recipe retrains a winner, and scored on val, as the supernet's scores are. All is kept in
    `path/diagnose`: called again, it goes on where it was cut short, and more architectures,
    seeds or another number of epochs add to what is there.

    Args:
        path: a directory of `noahnas search` with a trained supernet.
        archs: how many to draw, at least 3.
        prior: "paper" or "exact", as `Space.sample` has them.
        epochs: of each training, instead of the recipe's.
        seeds: of the trainings; each arch is trained once with each. The run's own by default.
        report: called after each epoch.

    Raises:
        RunError: if it is no run, has no trained supernet, another process is at work in it, or its
            data, backbone or device have changed.
        TrainingError: if a training diverges.
    """
    if archs < LEAST:
        raise RunError(f"{archs} architectures cannot be ranked; ask for {LEAST} or more")
    if prior not in ("paper", "exact"):
        raise RunError(unknown("prior", prior, ("paper", "exact")))
    run = RunDirectory.open(path)
    if "space" not in run.about["inputs"]:
        raise RunError(
            f"{path} is a retraining and has no supernet; diagnose a run of noahnas search"
        )
    with run.locked():
        stages = run.read_json(STAGES) if (path / STAGES).is_file() else {}
        if "supernet" not in stages or not (path / SUPERNET).is_file():
            raise RunError(
                f"{path} has no trained supernet yet; go on with it: noahnas search --resume {path}"
            )
        return _diagnose(run, reload(run, report), stages, archs, prior, epochs, seeds, report)


def _diagnose(
    run: RunDirectory,
    loaded: Loaded,
    stages: dict[str, Any],
    count: int,
    prior: Prior,
    epochs: int | None,
    seeds: Sequence[int],
    report: Report,
) -> Diagnosis:
    inputs, folder = loaded.inputs, run.path / FOLDER
    assert inputs.space  # the caller has looked
    folder.mkdir(exist_ok=True)
    for left in folder.glob(".*.tmp"):  # by a kill in the midst of a write; we hold the lock
        left.unlink(missing_ok=True)
    stage = inputs.recipe.retrain.of_epochs(epochs) if epochs else inputs.recipe.retrain
    seeds = tuple(dict.fromkeys(seeds)) or (inputs.seed,)
    space = loaded.bound(inputs.space)
    net, task = loaded.supernet(space), loaded.fed(inputs.recipe.search)
    load_trained(run.path / SUPERNET, net)

    drawn = _drawn(
        run, space.timed(lambda arch: latency(net, arch, task)), count, prior, inputs.seed
    )
    winner, median = _of_search(run, space) if "search" in stages else (None, None)
    chosen = [arch for arch in (winner, median) if arch]
    every = list(dict.fromkeys([*chosen, *drawn]))
    shared = {}
    for number, arch in enumerate(every, start=1):
        name = f"{FOLDER}/shared-{arch.digest}.json"
        if not (run.path / name).is_file():
            run.write_json(name, evaluate(net, arch, task).to_dict())
        shared[arch] = Result(**run.read_json(name))
        report(Progress("shared", number, len(every), f"val {shared[arch].accuracy:.3f}"))
    pairs = [(arch, seed) for seed in seeds for arch in every]
    trained = dict(zip(pairs, train_all(pairs, loaded, stage, folder, report), strict=True))

    def judged(arch: Arch) -> Judged:
        return Judged(arch, shared[arch], tuple(trained[arch, seed] for seed in seeds))

    found = judge(
        [judged(arch) for arch in drawn],
        judged(winner) if winner else None,
        judged(median) if median else None,
        asked=count,
        prior=prior,
        stage=stage,
        seeds=seeds,
        images=len(loaded.task.data.val),
    )
    run.write_json(f"{FOLDER}/result.json", found.to_dict())
    return found


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
        ceiling=noise_ceiling(alone, images),
        agreement=statistics.fmean(known) if known else None,
    )


def _drawn(run: RunDirectory, space: Space, count: int, prior: Prior, seed: int) -> list[Arch]:
    """Distinct feasible archs; kept, as a limit on latency is measured, and may not give them again.

    The n-th depends on those before it alone, so asking for more adds to what is there.
    """
    name = f"{FOLDER}/archs-{prior}.json"
    kept = run.read_json(name, "archs")["archs"] if (run.path / name).is_file() else []
    archs = [Arch.from_dict(arch) for arch in kept]
    while len(archs) < count:
        rng = np.random.default_rng([seed, zlib.crc32(b"diagnose"), len(archs)])
        draws = (space.sample(rng, 1, prior)[0] for _ in range(TRIES))
        fresh = next((arch for arch in draws if arch not in archs), None)
        if fresh is None:
            break
        archs.append(fresh)
    if len(archs) < LEAST:
        raise RunError(f"the space of {run.path} has too few architectures to rank: {len(archs)}")
    run.write_json(
        name, {"prior": prior, "seed": seed, "archs": [arch.to_dict() for arch in archs]}
    )
    return archs[:count]


def _of_search(run: RunDirectory, space: Space) -> tuple[Arch, Arch]:
    """The winner of a finished search, and the arch that half of those it evaluated beat."""
    entries = Study.journal(run.path / "study.journal", space).entries()
    fresh = [entry for entry in entries if entry.result and not entry.repeat]
    whole = [entry.trial for entry in fresh if entry.proposal.images is None]
    trials = whole or [entry.trial for entry in fresh]
    trials.sort(key=lambda trial: trial.result.rank, reverse=True)
    winner = run.read_json(STAGES, "search")["search"]["arch"]
    return Arch.from_dict(winner), trials[len(trials) // 2].arch


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
    return [f"{told}: the search is not shown to have chosen better than chance"]


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
    if found.ceiling is not None and found.sd < found.error:
        told.append(
            f"architectures trained alone differ by less than the noise of val (sd "
            f"{100 * found.sd:.1f} points, noise {100 * found.error:.1f}): no score can rank them"
        )
    if count < found.asked:
        told.append(
            f"the space has hardly more than {count} architectures; {found.asked} were asked"
        )
    if count < FEW:
        told.append(f"intervals of {count} architectures are rough: ask for {FEW} at least")
    return told
