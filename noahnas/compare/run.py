"""Doing a comparison: supernets, then every search on each, then retraining; each resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from noahnas.compare.plan import Cell, Plan, Shared, check_same, fitting, origins
from noahnas.compare.progress import Grid
from noahnas.compare.record import Known, Record, scored
from noahnas.diagnose import ARCHS
from noahnas.errors import RunError, SpaceError, StrategyError
from noahnas.evaluate import Result, evaluate, latency
from noahnas.export import load_trained
from noahnas.files import write_atomic
from noahnas.pipeline import (
    STAGES,
    SUPERNET,
    Loaded,
    cost_of_other,
    described,
    load,
    reload,
    supernet_stage,
)
from noahnas.progress import Report, silent
from noahnas.retrain import retrain
from noahnas.rundir import RunDirectory
from noahnas.search import search
from noahnas.space import Arch, Space
from noahnas.strategy import OneShot, Proposal, make_strategy
from noahnas.study import Study
from noahnas.supernet import Supernet
from noahnas.train import PASSES_PER_TRAINING_IMAGE, build

SEARCHED, RETRAINED, FLOOR = "search.json", "retrained.json", "floor.json"
Place = tuple[str, str, int]  # label, supernet, seed


@dataclass(frozen=True)
class Floor:
    """Random feasible archs under the shared weights: what no strategy selected."""

    val: tuple[float, ...]  # accuracies, an arch each
    test: tuple[float, ...]


@dataclass(frozen=True)
class Retrained:
    """A winner, trained alone."""

    test: Result
    passes: int
    seconds: float


@dataclass(frozen=True)
class Found:
    """All that a comparison measured."""

    about: Mapping[str, Any]  # run.json
    plan: Plan  # of those that searched to the end
    loaded: Loaded
    space: Space  # bound
    supernets: Mapping[str, Mapping[str, Any]]  # what training each cost
    floors: Mapping[str, Floor]  # by supernet
    records: Mapping[Place, Record]
    retrained: Mapping[tuple[str, int], Retrained]  # by the arch's digest and the seed


def carry_out(out: Path, plan: Plan, *, forgiving: bool = False, report: Report = silent) -> Found:
    """Do all of a plan that is not done yet; all that can be wrong with it is found before.

    Args:
        out: a new or empty directory, or one where this comparison was begun; entrants, supernets
            and seeds may have been added.
        plan: what to compare.
        forgiving: leave out entrants that cannot search the space, with the reason.
        report: called while data is loaded and while the work is done.

    Raises:
        NoahnasError: of the kind of what is wrong.
    """
    if (out / "run.json").is_file():
        run = RunDirectory.open(out)
        began = _began(run)
        check_same(began, plan, out)
        loaded = reload(run, plan.inputs, report)
        plan = _checked(plan, loaded, forgiving)
        grid = plan.grid()
        known = {part: began["known"][part] | grid[part] for part in ("entrants", "supernets")}
        if (began["grid"], began["known"]) != (grid, known):
            run.write_json("run.json", run.about | {"grid": grid, "known": known})
        return _carried_out(run, plan, loaded, report)
    loaded = load(plan.inputs, report)
    plan = _checked(plan, loaded, forgiving)
    for left in out.glob(".run.json.*.tmp"):  # by a kill in the very first write
        left.unlink(missing_ok=True)
    grid = plan.grid()
    known = {part: grid[part] for part in ("entrants", "supernets")}
    about = {"command": "compare"} | described(loaded) | {"grid": grid, "known": known}
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out} holds something else than a comparison; choose another --out")
    run = RunDirectory.create(out, about | {"strategies_from": origins(plan)})
    return _carried_out(run, plan, loaded, report)


def begun(out: Path) -> Plan:
    """The plan of a comparison that was begun.

    Raises:
        RunError: if there is none.
    """
    about = _began(RunDirectory.open(out))
    return Plan.from_dict(about["inputs"], about["grid"])


def _began(run: RunDirectory) -> dict[str, Any]:
    about = run.about
    if about.get("command") != "compare":
        raise RunError(f"{run.path} is the run of a {about.get('command')}, not of a comparison")
    return about


def _checked(plan: Plan, loaded: Loaded, forgiving: bool) -> Plan:
    space = _space(plan, loaded)
    for supernet in plan.supernets:
        if supernet.run:
            cost_of_other(Path(supernet.run), loaded.about(space))
    return fitting(plan, space, forgiving)


def _space(plan: Plan, loaded: Loaded) -> Space:
    return plan.space.bind(loaded.backbone.model, classes=len(loaded.task.data.classes))


# --- the grid --------------------------------------------------------------------------------


def _carried_out(run: RunDirectory, plan: Plan, loaded: Loaded, report: Report) -> Found:
    with run.locked():
        grid = Grid(report, _work(run.path, plan, loaded))
        supernets, floors, records = {}, {}, {}
        for shared in plan.supernets:
            cost, floor, done, left_out = _on(run, plan, shared, loaded, grid)
            supernets[shared.name], floors[shared.name] = cost, floor
            records |= {(label, shared.name, seed): r for (label, seed), r in done.items()}
            kept = tuple(e for e in plan.entrants if e.label not in left_out)
            plan = replace(plan, entrants=kept, left_out={**plan.left_out, **left_out})
            if not kept:
                told = "; ".join(f"{label}: {why}" for label, why in plan.left_out.items())
                raise StrategyError(f"no strategy could search to the end: {told}")
        retrained = dict(_retrained(run.path, plan, records, loaded, grid))
        return Found(
            run.about, plan, loaded, _space(plan, loaded), supernets, floors, records, retrained
        )


def _work(out: Path, plan: Plan, loaded: Loaded) -> int:
    """Passes that are still to be made, at most."""
    images = {name: len(loaded.task.data.split(name)) for name in ("train", "val", "test")}
    passes = 0
    for shared in plan.supernets:
        place = out / "supernets" / shared.name
        if not (place / STAGES).is_file() and not shared.run:
            passes += _training(loaded)
        if not (place / FLOOR).is_file():
            passes += ARCHS * (images["val"] + images["test"])
        for cell in plan.cells(shared):
            if not (out / cell.place / SEARCHED).is_file():
                passes += plan.trials * images["val"]
            if cell.seed in plan.retrain_seeds:
                passes += _retraining(loaded)
    return passes


def _training(loaded: Loaded) -> int:
    epochs = loaded.inputs.recipe.supernet.epochs
    return PASSES_PER_TRAINING_IMAGE * len(loaded.task.data.train) * epochs


def _retraining(loaded: Loaded) -> int:
    recipe, data = loaded.inputs.recipe, loaded.task.data
    images = len(data.train) + (len(data.val) if recipe.retrain_on == "train+val" else 0)
    return PASSES_PER_TRAINING_IMAGE * images * recipe.retrain.epochs


def _on(
    run: RunDirectory, plan: Plan, shared: Shared, loaded: Loaded, grid: Grid
) -> tuple[dict[str, Any], Floor, dict[tuple[str, int], Record], dict[str, str]]:
    """Everything on one supernet: what it cost, its floor, its searches; who failed, and why."""
    place = RunDirectory(run.path / "supernets" / shared.name)
    place.path.mkdir(parents=True, exist_ok=True)
    space = _space(plan, loaded)
    inputs = replace(loaded.inputs, seed=shared.seed, supernet=shared.run)
    loaded = replace(loaded, inputs=inputs)
    stage = inputs.recipe.supernet
    net = build(loaded.fresh(stage), space, len(loaded.task.data.classes), stage, shared.seed)
    net = net.to(loaded.task.device)
    if not (place.path / STAGES).is_file():
        passes = 0 if shared.run else _training(loaded)
        cost = supernet_stage(place, loaded, net, space, grid.part(shared.name, passes))
        place.write_json(STAGES, {"supernet": cost})
        grid.done(passes)
    (place.path / "supernet.ckpt").unlink(missing_ok=True)
    cost = place.read_json(STAGES, "supernet")["supernet"]
    load_trained(place.path / SUPERNET, net)
    floor = _floor(place, loaded, net, space, grid)
    done: dict[tuple[str, int], Record] = {}
    todo = []
    for cell in plan.cells(shared):
        where = run.path / cell.place / SEARCHED
        if where.is_file():
            done[cell.entrant.label, cell.seed] = Record.from_dict(_read(where))
        else:
            todo.append(cell)
    known: Known = {}
    for record in done.values():
        known |= {t.key: (t.result, t.evaluating) for t in record.trials}
    failed: dict[str, str] = {}
    passes = plan.trials * len(loaded.task.data.val)
    for number, cell in enumerate(todo, start=1):
        if cell.entrant.label not in failed:
            told = grid.part(f"[{number}/{len(todo)}] {cell}", passes)
            try:
                found = _search(run.path / cell.place, plan, cell, loaded, net, known, told)
            except (StrategyError, SpaceError) as e:
                failed[cell.entrant.label] = f"on {shared.name} with seed {cell.seed}: {e}"
            else:
                done[cell.entrant.label, cell.seed] = found
                known |= {t.key: (t.result, t.evaluating) for t in found.trials}
        grid.done(passes)
    return cost, floor, done, failed


def _floor(place: RunDirectory, loaded: Loaded, net: Supernet, space: Space, grid: Grid) -> Floor:
    if not (place.path / FLOOR).is_file():
        task = loaded.fed(loaded.inputs.recipe.search)
        archs = space.sample(np.random.default_rng([0, ARCHS]), ARCHS, prior="paper")
        found = {
            split: [evaluate(net, arch, task, split).accuracy for arch in archs]
            for split in ("val", "test")
        }
        place.write_json(FLOOR, found)
        grid.done(ARCHS * (len(task.data.val) + len(task.data.test)))
    told = place.read_json(FLOOR, "val", "test")
    return Floor(tuple(told["val"]), tuple(told["test"]))


def _search(
    place: Path,
    plan: Plan,
    cell: Cell,
    loaded: Loaded,
    net: Supernet,
    known: Known,
    report: Report,
) -> Record:
    """One search within both budgets; what others had scored before is looked up."""
    place.mkdir(parents=True, exist_ok=True)
    task = loaded.fed(loaded.inputs.recipe.search)
    space = _space(plan, loaded).timed(lambda arch: latency(net, arch, task))

    def score(proposal: Proposal) -> Result:
        key = proposal.arch.digest, proposal.images
        if key not in known:
            began = time.perf_counter()
            result = evaluate(net, proposal.arch, task, images=proposal.images)
            known[key] = result, time.perf_counter() - began
        return known[key][0]

    entrant = cell.entrant
    strategy = make_strategy(entrant.strategy, space, cell.seed, entrant.options)
    passes, seconds = 0, 0.0
    if isinstance(strategy, OneShot):
        passes, seconds = strategy.begin(net, task, place / "search.ckpt", report)
    images = len(task.data.val)
    allowed = min(plan.trials, max(1, (plan.trials * images - passes) // images))
    study = Study.journal(place / "study.journal", space)
    recipe = loaded.inputs.recipe
    outcome = search(strategy, score, study, trials=allowed, batch=recipe.batch, report=report)
    record = Record(
        scored(study.entries(), space, known),
        passes,
        seconds,
        outcome.best.arch,
        outcome.best.result,
        evaluate(net, outcome.best.arch, task, "test"),
        allowed,
        outcome.exhausted,
    )
    write_atomic(place / "best.yaml", outcome.best.arch.to_yaml().encode())
    write_atomic(place / SEARCHED, (json.dumps(record.to_dict()) + "\n").encode())
    (place / "search.ckpt").unlink(missing_ok=True)
    return record


def _retrained(
    out: Path,
    plan: Plan,
    records: Mapping[Place, Record],
    loaded: Loaded,
    grid: Grid,
) -> Iterator[tuple[tuple[str, int], Retrained]]:
    """Winners trained alone; one that several entrants found with one seed, once."""
    labels = {entrant.label for entrant in plan.entrants}
    wanted: dict[tuple[str, int], Arch] = {}
    for (label, _, seed), record in records.items():
        if seed in plan.retrain_seeds and label in labels:
            wanted.setdefault((record.winner.digest, seed), record.winner)
    recipe, passes = loaded.inputs.recipe, _retraining(loaded)
    places = {key: RunDirectory(out / "retrained" / key[0] / f"seed-{key[1]}") for key in wanted}
    grid.rest(passes * sum(not (p.path / RETRAINED).is_file() for p in places.values()))
    for number, ((digest, seed), arch) in enumerate(wanted.items(), start=1):
        place = places[digest, seed]
        place.path.mkdir(parents=True, exist_ok=True)
        if not (place.path / RETRAINED).is_file():
            trained = retrain(
                arch,
                loaded.fresh(recipe.retrain),
                loaded.fed(recipe.retrain),
                recipe.retrain,
                seed=seed,
                checkpoint=place.path / "retrain.ckpt",
                report=grid.part(f"[{number}/{len(wanted)}] winner {digest} · seed {seed}", passes),
                on=recipe.retrain_on,
            )
            told = {"arch": arch.to_dict(), "test": trained.result.to_dict()}
            place.write_json(RETRAINED, told | asdict(trained.log))
            grid.done(passes)
        (place.path / "retrain.ckpt").unlink(missing_ok=True)
        told = place.read_json(RETRAINED, "test", "passes", "seconds")
        yield (
            (digest, seed),
            Retrained(Result(**told["test"]), told["passes"], told["seconds"]),
        )


def _read(path: Path) -> dict[str, Any]:
    return RunDirectory(path.parent).read_json(path.name, "trials", "results", "winner", "val")
