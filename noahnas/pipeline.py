"""A whole run in its directory: supernet → search → retrain, each stage resumable.

A run may also be a retraining alone, of a given arch, or a supernet alone, which others search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from noahnas.backbone import load_backbone, weights_digest
from noahnas.data import Task
from noahnas.diagnose import spread
from noahnas.errors import RunError
from noahnas.evaluate import Scores, latency
from noahnas.export import BEST, load_trained, read_header, save_trained
from noahnas.files import digest, json_text, write_atomic
from noahnas.inputs import Inputs
from noahnas.loaded import Loaded, load, reload
from noahnas.policy import policy
from noahnas.probe import linear_probe
from noahnas.progress import Report
from noahnas.ranks import ALONE, Ranks
from noahnas.registry import origin
from noahnas.retrain import Retrained, retrain
from noahnas.rundir import RunDirectory, reading
from noahnas.search import Evaluate, search
from noahnas.shared import agree, join, search_shared
from noahnas.space import Arch, Space, format_space
from noahnas.space.check import binding
from noahnas.storage import file_of, opened, unmasked
from noahnas.strategy import GROUP, OneShot, make_strategy
from noahnas.study import Study, creator
from noahnas.supernet import Supernet
from noahnas.train import TrainLog, train
from noahnas.workers import Workers

SUPERNET = "supernet.safetensors"
COSTS = ("seconds", "passes", "computed_passes", "reused")  # of a stage
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


def start(
    out: Path,
    inputs: Inputs,
    report: Report = lambda _: None,
    ranks: Ranks = ALONE,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Run a search, a retraining alone or a supernet alone, in a new directory.

    Returns what result.json holds.

    Everything that can be wrong with the inputs is found before the directory is made.

    Raises:
        NoahnasError: of the kind of what is wrong.
    """
    if inputs.storage:
        with opened(inputs.storage):  # raises if it cannot be
            pass
    loaded = load(inputs, report)
    if inputs.supernet and inputs.space:
        cost_of_other(Path(inputs.supernet), loaded.about(inputs.space))
    if inputs.study and inputs.space:
        with opened(inputs.storage) as storage:
            made = creator(storage, inputs.study)
        if made:
            agree(inputs.study, made, _identity(loaded, loaded.bound(inputs.space)))
    searched = "search" if inputs.strategy else "supernet"
    about = {"command": searched if inputs.space else "retrain"} | described(loaded)
    about |= {"devices": ranks.local, "nodes": ranks.size // ranks.local}
    if inputs.strategy:
        about["strategy_from"] = origin(GROUP, inputs.strategy)
    with RunDirectory.created(out, about) as run:
        return _stages(run, loaded, report, ranks, workers)


def resume(
    path: Path,
    report: Report = lambda _: None,
    storage: str = "",
    ranks: Ranks = ALONE,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Go on with a run that was cut short; a finished one returns its result.

    Args:
        path: the run.
        report: called as the work goes on.
        storage: URL of the run's study with the password that run.json does not hold.
        ranks: the processes that train together.
        workers: the processes that score; None = this one.

    Raises:
        RunError: if it is no run, another process is at work in it, or its inputs have changed.
    """
    run = RunDirectory.open(path)
    if run.about.get("command") == "compare":
        raise RunError(f"{path} holds a comparison; go on with: noahnas compare --resume {path}")
    if (path / "result.json").is_file() and _whole(run):
        return run.read_json("result.json", "data", "cost")
    inputs = Inputs.from_dict(run.about["inputs"])
    if inputs.storage:
        inputs = replace(inputs, storage=unmasked(inputs.storage, storage))
        file = file_of(inputs.storage)
        if file and not file.is_file():
            raise RunError(f"{file} is not there, which holds the study of {path}; bring it back")
        with opened(inputs.storage):  # raises if it cannot be
            pass
    elif storage:
        raise RunError(f"the study of {path} lies in the run itself; leave out --storage")
    loaded = reload(run, report, inputs)
    with run.locked():
        return _stages(run, loaded, report, ranks, workers)


def described(loaded: Loaded) -> dict[str, Any]:
    """What run.json holds of inputs and of what they named when the run was begun."""
    return {
        "inputs": loaded.inputs.to_dict(),
        "digests": loaded.digests(),
        "classes": list(loaded.task.data.classes),
        "images": {name: len(loaded.task.data.split(name)) for name in ("train", "val", "test")},
        "notes": loaded.task.data.notes.to_dict(),
        "device": loaded.task.device.type,
        "precision": loaded.task.precision,
        "threads": torch.get_num_threads(),
    }


def _stages(
    run: RunDirectory, loaded: Loaded, report: Report, ranks: Ranks, workers: Workers | None
) -> dict[str, Any]:
    """Do the stages that are not done; the caller holds the run's lock."""
    inputs = loaded.inputs
    done = run.read_json(STAGES) if (run.path / STAGES).exists() else {}

    def stage(name: str, work: Callable[[], dict[str, Any]], makes: str = "") -> dict[str, Any]:
        if name not in done or not (run.path / makes).exists():
            done[name] = work()
            run.write_json(STAGES, done)
        (run.path / f"{name}.ckpt").unlink(missing_ok=True)
        found: dict[str, Any] = done[name]
        return found

    if inputs.space:
        space = loaded.bound(inputs.space)
        net = loaded.supernet(space)
        trained = partial(supernet_stage, run, loaded, net, space, report, ranks)
        stage("supernet", trained, SUPERNET)
        load_trained(run.path / SUPERNET, net)
        searched = loaded.fed(inputs.recipe.search)
        stage("spread", lambda: _spread(loaded, net, space))
        if not inputs.strategy:
            with reading(run.path / STAGES):
                result = _common(loaded, done) | _searched(loaded, done)
            return _written(run, result)
        timed = space.timed(lambda arch: latency(net, arch, searched))
        found = stage("search", lambda: _search(run, loaded, net, timed, report, workers))
        with reading(run.path / STAGES):
            arch = Arch.from_dict(found["arch"])
        heir = inputs.recipe.retrain_from == "supernet"
        start = {k: v.detach().cpu() for k, v in net.trainable().items()} if heir else None
    else:
        arch, start = inputs.arch or Arch(), None
    write_atomic(run.path / "best.yaml", arch.to_yaml().encode())
    kept = "" if inputs.held_out else BEST  # of a rate that was tried no weights are kept
    stage("retrain", lambda: _retrain(run, loaded, arch, start, report, ranks), kept)
    if inputs.probe:
        stage("probe", lambda: _probe(loaded))
    with reading(run.path / STAGES):
        result = _result(loaded, arch, done)
    return _written(run, result)


def _whole(run: RunDirectory) -> bool:
    """Whether the weights that a finished run tells of are there, if it retrains anything."""
    inputs = run.about["inputs"]
    retrains = "space" not in inputs or bool(inputs.get("strategy"))
    return not retrains or bool(inputs.get("held_out")) or (run.path / BEST).is_file()


def _written(run: RunDirectory, result: dict[str, Any]) -> dict[str, Any]:
    run.write_json("result.json", result)
    return result


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


def _spread(loaded: Loaded, net: Supernet, space: Space) -> dict[str, Any]:
    """How far random archs lie apart; what another run measured of the same weights is taken."""
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
    return asdict(spread(net, space, loaded.fed(inputs.recipe.search), inputs.seed))


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


def _search(
    run: RunDirectory,
    loaded: Loaded,
    net: Supernet,
    space: Space,
    report: Report,
    workers: Workers | None,
) -> dict[str, Any]:
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
    identity = _identity(loaded, space) | {"supernet": weights}
    name = inputs.study or f"noahnas-{digest(json_text(identity).encode())[:16]}"
    with opened(inputs.storage) as storage:
        yield Study(storage, space, name, worker, identity)


def _identity(loaded: Loaded, space: Space) -> dict[str, Any]:
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


def retrain_stage(
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
            ranks=ranks,
        )


def _retrain(
    run: RunDirectory,
    loaded: Loaded,
    arch: Arch,
    start: Mapping[str, Tensor] | None,
    report: Report,
    ranks: Ranks,
) -> dict[str, Any]:
    job = Job(loaded.inputs, loaded.digests(), arch, start)
    ranks.share(job)
    trained = retrain_stage(loaded, job, run.path / "retrain.ckpt", report, ranks)
    assert trained is not None  # as this is rank 0
    save_trained(run.path / BEST, trained.net, {"arch": arch.to_dict()} | loaded.digests())
    head = sum(p.numel() for p in trained.net.head.parameters())
    tuned = sum(p.numel() for p in trained.net.trainable().values()) - head
    sizes = {"head": head, "tuned": tuned}
    return {"result": trained.result.to_dict()} | sizes | asdict(trained.log)


def _probe(loaded: Loaded) -> dict[str, Any]:
    probe = linear_probe(load_backbone(loaded.inputs.backbone), loaded.task)
    return asdict(probe)


def _common(loaded: Loaded, done: Mapping[str, Any]) -> dict[str, Any]:
    inputs = loaded.inputs
    return {
        "data": loaded.task.data.name,
        "backbone": inputs.backbone,
        "seed": inputs.seed,
        "recipe": inputs.recipe.name,
        "full": inputs.full,
        "cost": {
            name: {key: found[key] for key in COSTS if key in found} for name, found in done.items()
        },
    }


def _searched(loaded: Loaded, done: Mapping[str, Any]) -> dict[str, Any]:
    """What a result tells of the space, and of how far archs differ under the shared weights."""
    assert loaded.inputs.space is not None  # as there is a supernet
    space = loaded.bound(loaded.inputs.space)
    return {
        "space": loaded.inputs.space.name,
        "budget": space.limits[1],
        "binding": asdict(binding(space)),
        "spread": {key: done["spread"][key] for key in ("mean", "sd", "error", "archs")},
    }


def _result(loaded: Loaded, arch: Arch, done: Mapping[str, Any]) -> dict[str, Any]:
    inputs, tested = loaded.inputs, done["retrain"]
    result = _common(loaded, done) | {
        "arch": arch.to_dict(),
        "digest": arch.digest,
        "params": tested["tuned"],
        "params_with_head": tested["tuned"] + tested["head"],
        "val" if inputs.held_out else "test": tested["result"],
    }
    if inputs.probe:
        result["probe"] = done["probe"]["result"]
    if inputs.test_every:
        marks = {i + 1: mark for i, mark in enumerate(tested["marks"]) if mark is not None}
        best = max(marks, key=lambda epoch: marks[epoch])
        result["best_test"] = {"accuracy": marks[best], "epoch": best, "of": inputs.test_every}
    if inputs.space:
        found = done["search"]
        result |= _searched(loaded, done) | {
            "strategy": inputs.strategy,
            "val": found["result"],
            "evaluations": found["evaluations"],
            "exhausted": found["exhausted"],
        }
        result |= {"front": found["front"]} if "front" in found else {}
    return result
