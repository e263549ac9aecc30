"""A whole run in its directory: supernet → search → (epochs →) retrain, each stage resumable.

A run may also be a retraining alone, of a given arch, or a supernet alone, which others search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from noahnas import epochs
from noahnas.errors import RunError
from noahnas.evaluate import latency
from noahnas.export import BEST, load_trained
from noahnas.files import write_atomic
from noahnas.inputs import Inputs
from noahnas.loaded import Loaded, load, reload
from noahnas.progress import Report
from noahnas.ranks import ALONE, Ranks
from noahnas.registry import origin
from noahnas.rundir import RunDirectory, reading
from noahnas.shared import agree
from noahnas.space import Arch
from noahnas.space.check import binding
from noahnas.stages import (
    STAGES,
    SUPERNET,
    cost_of_other,
    epochs_stage,
    identity,
    probe_stage,
    retrain_stage,
    search_stage,
    spread_stage,
    supernet_stage,
)
from noahnas.storage import file_of, opened, unmasked
from noahnas.strategy import GROUP
from noahnas.study import creator
from noahnas.workers import Workers

SPREAD = ("mean", "sd", "error", "chance", "learned", "archs")  # what a result tells of it
COSTS = ("seconds", "passes", "computed_passes", "reused")  # of a stage


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
            agree(inputs.study, made, identity(loaded, loaded.bound(inputs.space)))
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
        log = stage("supernet", trained, SUPERNET)
        load_trained(run.path / SUPERNET, net)
        searched = loaded.fed(inputs.recipe.search)
        stage("spread", lambda: spread_stage(loaded, net, space, log))
        if not inputs.strategy:
            with reading(run.path / STAGES):
                result = _common(loaded, done) | _searched(loaded, done)
            return _written(run, result)
        timed = space.timed(lambda arch: latency(net, arch, searched))
        found = stage("search", lambda: search_stage(run, loaded, net, timed, report, workers))
        with reading(run.path / STAGES):
            arch = Arch.from_dict(found["arch"])
        heir = inputs.recipe.retrain_from == "supernet"
        start = {k: v.detach().cpu() for k, v in net.trainable().items()} if heir else None
    else:
        arch, start = inputs.arch or Arch(), None
    write_atomic(run.path / "best.yaml", arch.to_yaml().encode())
    chosen = inputs.recipe
    if chosen.retrain_epochs and not inputs.held_out:
        for n in chosen.retrain_epochs:
            trial = partial(epochs_stage, run, loaded, arch, start, n, report, ranks)
            stage(epochs.name_of(n), trial)
        with reading(run.path / STAGES):
            chosen = epochs.as_taken(chosen, done)
    kept = "" if inputs.held_out else BEST  # of a rate that was tried no weights are kept
    last = replace(loaded, inputs=replace(inputs, recipe=chosen))
    stage("retrain", lambda: retrain_stage(run, last, arch, start, report, ranks), kept)
    if inputs.probe:
        stage("probe", lambda: probe_stage(loaded))
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


def _common(loaded: Loaded, done: Mapping[str, Any]) -> dict[str, Any]:
    inputs = loaded.inputs
    return {
        "data": loaded.task.data.name,
        "backbone": inputs.backbone,
        "seed": inputs.seed,
        "recipe": inputs.recipe.name,
        "full": inputs.full,
        "cost": _cost(done),
    }


def _cost(done: Mapping[str, Any]) -> dict[str, Any]:
    """Of each stage; those that try a number of epochs are one."""
    cost: dict[str, Any] = {}
    for name, found in done.items():
        own = {key: found[key] for key in COSTS if key in found}
        if name.startswith(f"{epochs.EPOCHS}-"):
            name, before = epochs.EPOCHS, cost.get(epochs.EPOCHS, {})
            own = {key: value + before.get(key, 0) for key, value in own.items()}
        cost[name] = own
    return cost


def _searched(loaded: Loaded, done: Mapping[str, Any]) -> dict[str, Any]:
    """What a result tells of the space, and of how far archs differ under the shared weights."""
    assert loaded.inputs.space is not None  # as there is a supernet
    space = loaded.bound(loaded.inputs.space)
    return {
        "space": loaded.inputs.space.name,
        "budget": space.limits[1],
        "binding": asdict(binding(space)),
        "spread": {key: done["spread"][key] for key in SPREAD},
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
    if vals := epochs.tried(inputs.recipe, done):
        by_number = {str(number): val for number, val in vals.items()}
        result["epochs"] = {"taken": epochs.best(vals), "val": by_number}
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
