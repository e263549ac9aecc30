"""Diagnosing a run: drawing architectures, training them alone, setting scores side by side."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from noahnas.epochs import as_taken
from noahnas.errors import RunError, unknown
from noahnas.evaluate import Result, evaluate, latency
from noahnas.export import load_trained
from noahnas.fidelity.alone import train_all
from noahnas.fidelity.judge import Diagnosis, Judged, judge
from noahnas.files import sweep
from noahnas.loaded import Loaded, reload
from noahnas.progress import Progress, Report, silent
from noahnas.rundir import RunDirectory, reading
from noahnas.space import Arch, Space
from noahnas.stages import STAGES, SUPERNET
from noahnas.strategy import TRIES
from noahnas.study import Study
from noahnas.typed import typed

FOLDER = "diagnose"  # of a run
ARCHS = 20  # drawn and trained, unless told otherwise
LEAST = 3  # of which a ranking can be told at all

Prior = Literal["paper", "exact"]


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
        epochs: of each training, instead of the recipe's, or of those that the run has taken.
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
    if run.about.get("command") == "compare":
        raise RunError(f"{path} holds a comparison; diagnose a run of noahnas search")
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
    sweep(folder)
    with reading(run.path / STAGES):
        retrain = as_taken(inputs.recipe, stages).retrain
    stage = retrain.of_epochs(epochs) if epochs else retrain
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
        with reading(run.path / name):
            shared[arch] = typed(Result, run.read_json(name), "result")
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


def _drawn(run: RunDirectory, space: Space, count: int, prior: Prior, seed: int) -> list[Arch]:
    """Distinct feasible archs; kept, since a limit on latency is measured, and differs each time.

    The n-th depends on those before it alone, so asking for more adds to what is there.
    """
    name = f"{FOLDER}/archs-{prior}.json"
    kept = run.read_json(name, "archs")["archs"] if (run.path / name).is_file() else []
    with reading(run.path / name):
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
    with reading(run.path / STAGES):
        winner = Arch.from_dict(run.read_json(STAGES, "search")["search"]["arch"])
    return winner, trials[len(trials) // 2].arch
