"""The stages of a run: training the supernet, searching it, retraining the winner, the probe.

A recipe may name several numbers of epochs; then the winner is first trained on train for each.

Each does its work and returns what it measured; `noahnas.pipeline` says when.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor

from noahnas.backbone import load_backbone, weights_digest
from noahnas.data import Task
from noahnas.diagnose import spread
from noahnas.epochs import name_of
from noahnas.errors import RunError
from noahnas.evaluate import Scores
from noahnas.export import BEST, load_trained, read_header, save_trained
from noahnas.files import digest, json_text
from noahnas.inputs import Inputs
from noahnas.loaded import Loaded
from noahnas.policy import policy
from noahnas.probe import linear_probe
from noahnas.progress import Report
from noahnas.ranks import ALONE, Ranks
from noahnas.retrain import Retrained, retrain
from noahnas.rundir import RunDirectory, reading
from noahnas.search import Evaluate, search
from noahnas.shared import join, search_shared
from noahnas.space import Arch, Space, format_space
from noahnas.storage import opened
from noahnas.strategy import OneShot, make_strategy
from noahnas.study import Study
from noahnas.supernet import Supernet
from noahnas.train import TrainLog, train
from noahnas.workers import Workers

logger = logging.getLogger(__name__)

SUPERNET = "supernet.safetensors"
JOURNAL = "study.journal"  # of a study that lies elsewhere, a copy when the search has ended
WORKER = "worker.json"  # who this run is among those that share its study
STAGES = "stages.json"  # what each finished stage measured


@dataclass(frozen=True)
class Job:
    """A training that rank 0 begins, as the other ranks are told of it."""

    inputs: Inputs
    digests: Mapping[str, str]  # of backbone and data
    arch: Arch | None = None  # to be retrained; None = the supernet
    start: Mapping[str, Tensor] | None = None  # of a supernet, with which the arch begins
    name: str = "retrain"  # of the arch's training: what it draws depends on that


def supernet_stage(
    run: RunDirectory,
    loaded: Loaded,
    net: Supernet,
    space: Space,
    report: Report,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train `net`, or copy the weights of another run's; they are in SUPERNET when it returns."""
    about = loaded.about(space)
    if loaded.inputs.supernet:
        other = Path(loaded.inputs.supernet)
        cost = cost_of_other(other, about)
        load_trained(other / SUPERNET, net)
        save_trained(run.path / SUPERNET, net, read_header(other / SUPERNET))
        return cost | {"reused": str(other)}
    ranks.share(Job(loaded.inputs, loaded.digests()))
    log = train_supernet(loaded, net, space, run.path / "supernet.ckpt", report, ranks)
    save_trained(run.path / SUPERNET, net, about)
    return asdict(log)


def train_supernet(
    loaded: Loaded, net: Supernet, space: Space, checkpoint: Path, report: Report, ranks: Ranks
) -> TrainLog:
    """Train `net` as the recipe says."""
    stage = loaded.inputs.recipe.supernet
    with ranks.cores_shared():
        return train(
            net,
            loaded.fed(stage),
            loaded.task.data.train,
            stage,
            name="supernet",
            plan=policy(loaded.inputs.recipe.policy, space),
            seed=loaded.inputs.seed,
            checkpoint=checkpoint,
            report=report,
            ranks=ranks,
        )


def spread_stage(
    loaded: Loaded, net: Supernet, space: Space, trained: Mapping[str, Any]
) -> dict[str, Any]:
    """How far random archs lie apart; what another run measured of the same weights is taken.

    It is told as a warning if they score no more than chance; `trained` is what the supernet's
    stage measured.
    """
    inputs = loaded.inputs
    other = Path(inputs.supernet) if inputs.supernet else None
    if other and all((other / name).is_file() for name in ("run.json", STAGES)):
        about, stages = RunDirectory(other).about, RunDirectory(other).read_json(STAGES)
        same = (
            about["inputs"].get("space") == inputs.to_dict()["space"]
            and about["inputs"]["seed"] == inputs.seed
            and about["inputs"]["recipe"]["search"]["normalise"] == inputs.recipe.search.normalise
            and (about["precision"], about["device"])
            == (loaded.task.precision, loaded.task.device.type)
        )
        if same and "spread" in stages:
            found: dict[str, Any] = stages["spread"]
            return found | {"reused": str(other)}
    measured = spread(net, space, loaded.fed(inputs.recipe.search), inputs.seed)
    if not measured.learned:
        logger.warning(
            "the supernet has learned nothing: random archs score %.1f%% on val, its commonest "
            "class alone %.1f%%, so a search ranks noise; train one with a lower supernet.lr in "
            "the recipe (this one had %g), or for more --supernet-epochs (it had %d)",
            100 * measured.mean, 100 * measured.chance, trained["lr"], len(trained["losses"]),
        )  # fmt: skip
    return asdict(measured)


def cost_of_other(run: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What training another run's supernet cost.

    Raises:
        RunError: unless it is finished, and for the same modules, backbone and data. Rules may be
            added: what they leave was trained, too.
    """
    if not (run / SUPERNET).is_file() or not (run / STAGES).is_file():
        raise RunError(f"{run} holds no trained supernet ({SUPERNET})")
    with reading(run / SUPERNET):
        differ = _differing(read_header(run / SUPERNET), wanted)
    if differ:
        raise RunError(f"the supernet of {run} does not fit: {'; '.join(differ)}")
    cost: dict[str, Any] = RunDirectory(run).read_json(STAGES, "supernet")["supernet"]
    return cost


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In what a trained supernet is not the one that is wanted."""
    pairs = [
        ("space", found.get("space", {}).get("modules"), wanted["space"]["modules"]),
        ("backbone", found.get("backbone"), wanted["backbone"]),
        ("data", found.get("data"), wanted["data"]),
        ("normalisation", found.get("normalise"), wanted["normalise"]),
    ]
    if "feasible" in found.get("policy", "").split(
        "+"
    ):  # what exceeds its budget was never trained
        had, needed = (about["space"].get("budget") for about in (found, wanted))
        pairs.append(("budget", had, needed))
    differ = [f"its {what} is {had}, not {needed}" for what, had, needed in pairs if had != needed]
    had, needed = (set(about["space"].get("rules", ())) for about in (found, wanted))
    if had - needed:
        told = ", ".join(sorted(had - needed))
        differ.append(f"it was trained under rules that are not asked for: {told}")
    return differ


def search_stage(
    run: RunDirectory,
    loaded: Loaded,
    net: Supernet,
    space: Space,
    report: Report,
    workers: Workers | None,
) -> dict[str, Any]:
    """Search the supernet `net`, in this process or by workers; the best arch and what it cost."""
    inputs = loaded.inputs
    task = loaded.fed(inputs.recipe.search)
    with ExitStack() as stack:
        score = stack.enter_context(_scoring(net, task, inputs.recipe.search.by, workers, report))
        study = stack.enter_context(_study(run, loaded, net, space))
        seed = join(study, inputs.seed) if inputs.storage else inputs.seed
        strategy = make_strategy(inputs.strategy, space, seed, inputs.options)
        passes, seconds = 0, 0.0
        if isinstance(strategy, OneShot):
            passes, seconds = strategy.begin(net, task, run.path / "search.ckpt", report)
        look = partial(search_shared, patience=inputs.patience) if inputs.storage else search
        outcome = look(
            strategy,
            score,
            study,
            trials=inputs.recipe.trials,
            batch=inputs.recipe.batch,
            images=len(task.data.val),
            report=report,
        )
        if inputs.storage:
            study.copy(run.path / JOURNAL)
    front = {"front": outcome.front.to_dict()} if outcome.front else {}
    return front | {
        "arch": outcome.best.arch.to_dict(),
        "result": outcome.best.result.to_dict(),
        "evaluations": outcome.evaluations,
        "exhausted": outcome.exhausted,
        "passes": outcome.passes + passes,
        "computed_passes": outcome.computed + passes,
        "seconds": outcome.seconds + seconds,
    }


@contextmanager
def _scoring(
    net: Supernet, task: Task, by: str, workers: Workers | None, report: Report
) -> Iterator[Evaluate]:
    """What scores proposals: this process, or workers."""
    if workers:
        with workers.scoring(net, task, by, report) as score:
            yield score
        return
    scores = Scores(net, task, by=by)
    yield lambda proposals: scores([p.arch for p in proposals], [p.images for p in proposals])


@contextmanager
def _study(run: RunDirectory, loaded: Loaded, net: Supernet, space: Space) -> Iterator[Study]:
    """The study of a run: in its directory, or where its inputs say."""
    inputs = loaded.inputs
    if not inputs.storage:
        yield Study.journal(run.path / JOURNAL, space)
        return
    if not (run.path / WORKER).is_file():
        run.write_json(WORKER, {"worker": uuid4().hex})
    worker = run.read_json(WORKER, "worker")["worker"]
    weights = weights_digest(net.trainable())[:16]  # of no file: a header has no order
    about = identity(loaded, space) | {"supernet": weights}
    name = inputs.study or f"noahnas-{digest(json_text(about).encode())[:16]}"
    with opened(inputs.storage) as storage:
        yield Study(storage, space, name, worker, about)


def identity(loaded: Loaded, space: Space) -> dict[str, Any]:
    """What scores depend on beside the supernet's weights."""
    inputs = loaded.inputs
    return {
        "space": digest(format_space(space).encode())[:16],
        "data": loaded.task.data.digest[:16],
        "backbone": loaded.backbone.digest[:16],
        "precision": loaded.task.precision,
        "normalisation": inputs.recipe.search.normalise,
        "strategy": inputs.strategy,
        "options": dict(inputs.options),
        "seed": inputs.seed,
        "by": inputs.recipe.search.by,
    }


def retrain_job(
    loaded: Loaded, job: Job, checkpoint: Path, report: Report, ranks: Ranks
) -> Retrained | None:
    """Retrain a job's arch as inputs and recipe say; None on other ranks than 0."""
    assert job.arch is not None  # callers say so
    inputs = loaded.inputs
    stage = inputs.recipe.retrain
    with ranks.cores_shared():
        return retrain(
            job.arch,
            loaded.fresh(stage),
            loaded.fed(stage),
            stage,
            seed=inputs.seed,
            checkpoint=checkpoint,
            report=report,
            on="train" if inputs.held_out else inputs.recipe.retrain_on,
            full=inputs.full,
            test_every=inputs.test_every,
            split="val" if inputs.held_out else "test",
            start=job.start,
            name=job.name,
            ranks=ranks,
        )


def epochs_stage(
    run: RunDirectory,
    loaded: Loaded,
    arch: Arch,
    start: Mapping[str, Tensor] | None,
    epochs: int,
    report: Report,
    ranks: Ranks,
) -> dict[str, Any]:
    """Train an arch on train for so many epochs, and score it on val; no weights are kept."""
    recipe = loaded.inputs.recipe.retrained_for(epochs)
    inputs = replace(loaded.inputs, recipe=recipe, held_out=True, test_every=0)
    job = Job(inputs, loaded.digests(), arch, start, name_of(epochs))
    ranks.share(job)
    checkpoint = run.path / f"{job.name}.ckpt"
    trained = retrain_job(replace(loaded, inputs=inputs), job, checkpoint, report, ranks)
    assert trained is not None  # as this is rank 0
    passes = trained.log.passes + trained.result.passes
    return asdict(trained.log) | {"result": trained.result.to_dict(), "passes": passes}


def retrain_stage(
    run: RunDirectory,
    loaded: Loaded,
    arch: Arch,
    start: Mapping[str, Tensor] | None,
    report: Report,
    ranks: Ranks,
) -> dict[str, Any]:
    """Retrain an arch and test it; its weights are in BEST when it returns."""
    job = Job(loaded.inputs, loaded.digests(), arch, start)
    ranks.share(job)
    trained = retrain_job(loaded, job, run.path / "retrain.ckpt", report, ranks)
    assert trained is not None  # as this is rank 0
    save_trained(run.path / BEST, trained.net, {"arch": arch.to_dict()} | loaded.digests())
    head = sum(p.numel() for p in trained.net.head.parameters())
    tuned = sum(p.numel() for p in trained.net.trainable().values()) - head
    sizes = {"head": head, "tuned": tuned}
    return {"result": trained.result.to_dict()} | sizes | asdict(trained.log)


def probe_stage(loaded: Loaded) -> dict[str, Any]:
    """What the frozen backbone gives with a linear head alone."""
    probe = linear_probe(load_backbone(loaded.inputs.backbone), loaded.task)
    return asdict(probe)
