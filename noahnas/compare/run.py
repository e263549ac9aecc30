"""Doing a comparison: supernets, then every search on each, then retraining; each resumable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from noahnas.compare.glimpse import MOST, glimpsed
from noahnas.compare.plan import Cell, Plan, Shared, check_same, fitting
from noahnas.compare.progress import Grid
from noahnas.compare.record import Known, Place, Record, scored
from noahnas.compare.retrained import Retrained, retrained, retraining_passes
from noahnas.diagnose import ARCHS
from noahnas.errors import RunError, SpaceError, StrategyError
from noahnas.evaluate import Result, evaluate, evaluate_batch, latency
from noahnas.export import load_trained
from noahnas.files import write_atomic
from noahnas.loaded import Loaded, load, reload
from noahnas.pipeline import STAGES, SUPERNET, cost_of_other, described, supernet_stage
from noahnas.progress import Progress, Report, silent
from noahnas.rundir import RunDirectory
from noahnas.search import search
from noahnas.space import Space
from noahnas.strategy import OneShot, Proposal, make_strategy
from noahnas.study import Study
from noahnas.supernet import Supernet
from noahnas.train import PASSES_PER_TRAINING_IMAGE

FEWEST = 5  # random archs, to see a spread at all
SEARCHED, FLOOR = "search.json", "floor.json"


@dataclass(frozen=True)
class Floor:
    """Random feasible archs under the shared weights: what no strategy selected."""

    val: tuple[float, ...]  # accuracies, an arch each
    test: tuple[float, ...]


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
    if not (out / "run.json").is_file():
        return _first(out, plan, forgiving, report)
    run = RunDirectory.open(out)
    began = _began(run)
    with run.locked():
        check_same(began, plan, out)
        loaded = reload(run, report, plan.inputs)
        plan = _checked(out, plan, loaded, forgiving)
        grid = plan.grid()
        known = {part: began["known"][part] | grid[part] for part in ("entrants", "supernets")}
        if (began["grid"], began["known"]) != (grid, known):
            run.write_json("run.json", run.about | {"grid": grid, "known": known})
        return _carried_out(run, plan, loaded, report)


def _first(out: Path, plan: Plan, forgiving: bool, report: Report) -> Found:
    loaded = load(plan.inputs, report)
    plan = _checked(out, plan, loaded, forgiving)
    for left in out.glob(".run.json.*.tmp"):  # by a kill in the very first write
        left.unlink(missing_ok=True)
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out} holds something else than a comparison; choose another --out")
    grid = plan.grid()
    known = {part: grid[part] for part in ("entrants", "supernets")}
    about = {"command": "compare"} | described(loaded) | {"grid": grid, "known": known}
    run = RunDirectory.create(out, about)
    with run.locked():
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


def _checked(out: Path, plan: Plan, loaded: Loaded, forgiving: bool) -> Plan:
    space = _space(plan, loaded)
    for supernet in plan.supernets:
        copied = (out / "supernets" / supernet.name / STAGES).is_file()
        if supernet.run and not copied:
            cost_of_other(Path(supernet.run), loaded.about(space))
    return fitting(plan, space, forgiving)


def _space(plan: Plan, loaded: Loaded) -> Space:
    return loaded.bound(plan.space)


# --- the grid --------------------------------------------------------------------------------


def _carried_out(run: RunDirectory, plan: Plan, loaded: Loaded, report: Report) -> Found:
    grid = Grid(report, _work(run.path, plan, loaded))
    supernets: dict[str, dict[str, Any]] = {}
    floors: dict[str, Floor] = {}
    records: dict[Place, Record] = {}
    for shared in plan.supernets:
        done, left_out = _on(run, plan, shared, loaded, grid)
        place = RunDirectory(run.path / "supernets" / shared.name)
        supernets[shared.name] = place.read_json(STAGES, "supernet")["supernet"]
        floor = place.read_json(FLOOR, "val", "test")
        floors[shared.name] = Floor(tuple(floor["val"]), tuple(floor["test"]))
        records |= {(label, shared.name, seed): r for (label, seed), r in done.items()}
        kept = tuple(e for e in plan.entrants if e.label not in left_out)
        plan = replace(plan, entrants=kept, left_out={**plan.left_out, **left_out})
        if not kept:
            told = "; ".join(f"{label}: {why}" for label, why in plan.left_out.items())
            raise StrategyError(f"no strategy could search to the end: {told}")
    again = dict(retrained(run.path, plan, records, loaded, grid))
    space = _space(plan, loaded)
    return Found(run.about, plan, loaded, space, supernets, floors, records, again)


def _work(out: Path, plan: Plan, loaded: Loaded) -> int:
    """Passes that are still to be made, at most."""
    images = {name: len(loaded.task.data.split(name)) for name in ("train", "val", "test")}
    passes = 0
    for shared in plan.supernets:
        place = out / "supernets" / shared.name
        if not (place / STAGES).is_file() and not shared.run:
            passes += _training(loaded)
        if not (place / FLOOR).is_file():
            passes += _archs(loaded) * (images["val"] + min(images["test"], MOST))
        for cell in plan.cells(shared):
            if not (out / cell.place / SEARCHED).is_file():
                passes += plan.trials * images["val"]
            if cell.seed in plan.retrain_seeds:
                passes += retraining_passes(loaded)
    return passes


def _archs(loaded: Loaded) -> int:
    """Random archs that show the noise floor: in a small comparison no more than it searches."""
    return min(ARCHS, max(FEWEST, loaded.inputs.recipe.trials))


def _training(loaded: Loaded) -> int:
    epochs = loaded.inputs.recipe.supernet.epochs
    return PASSES_PER_TRAINING_IMAGE * len(loaded.task.data.train) * epochs


def _on(
    run: RunDirectory, plan: Plan, shared: Shared, loaded: Loaded, grid: Grid
) -> tuple[dict[tuple[str, int], Record], dict[str, str]]:
    """All searches on one supernet, by label and seed; and who failed, and why."""
    done: dict[tuple[str, int], Record] = {}
    todo: list[Cell] = []
    known: Known = {}
    for cell in plan.cells(shared):
        where = run.path / cell.place / SEARCHED
        if where.is_file():
            record = Record.from_dict(_read(where))
            known |= {t.key: (t.result, t.evaluating) for t in record.trials}
            done[cell.entrant.label, cell.seed] = record
        else:
            todo.append(cell)
    place = RunDirectory(run.path / "supernets" / shared.name)
    failed: dict[str, str] = {}
    if not todo and (place.path / FLOOR).is_file():
        return done, failed
    loaded = replace(loaded, inputs=replace(loaded.inputs, seed=shared.seed, supernet=shared.run))
    net = _trained(place, _space(plan, loaded), loaded, grid)
    passes = plan.trials * len(loaded.task.data.val)
    for number, cell in enumerate(todo, start=1):
        label = cell.entrant.label
        if label not in failed:
            told = grid.part(f"[{number}/{len(todo)}] {cell}", passes)
            try:
                record = _search(run.path / cell.place, plan, cell, loaded, net, known, told)
            except (StrategyError, SpaceError) as e:
                failed[label] = f"on {shared.name} with seed {cell.seed}: {e}"
            else:
                done[label, cell.seed] = record
                known |= {t.key: (t.result, t.evaluating) for t in record.trials}
        grid.done(passes)
    return done, failed


def _trained(place: RunDirectory, space: Space, loaded: Loaded, grid: Grid) -> Supernet:
    """A supernet with its weights, trained or copied unless it was; and what its noise is."""
    place.path.mkdir(parents=True, exist_ok=True)
    inputs, task = loaded.inputs, loaded.fed(loaded.inputs.recipe.search)
    net = loaded.supernet(space)
    if not (place.path / STAGES).is_file() or not (place.path / SUPERNET).is_file():
        passes = 0 if inputs.supernet else _training(loaded)
        report = grid.part(place.path.name, passes)
        place.write_json(STAGES, {"supernet": supernet_stage(place, loaded, net, space, report)})
        grid.done(passes)
    (place.path / "supernet.ckpt").unlink(missing_ok=True)
    load_trained(place.path / SUPERNET, net)
    if not (place.path / FLOOR).is_file():
        count = _archs(loaded)
        archs = space.sample(np.random.default_rng([0, ARCHS]), count, prior="paper")
        task = glimpsed(task)
        passes = count * (len(task.data.val) + len(task.data.test))
        report = grid.part(place.path.name, passes)
        found: dict[str, list[float]] = {"val": [], "test": []}
        for number, arch in enumerate(archs, start=1):
            for split, scores in found.items():
                scores.append(evaluate(net, arch, task, split).accuracy)
            report(Progress("noise floor", number, count, "random archs"))
        place.write_json(FLOOR, found)
        grid.done(passes)
    return net


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

    def score(proposals: Sequence[Proposal]) -> list[Result]:
        asked = {(p.arch.digest, p.images): p for p in proposals}
        new = {key: p for key, p in asked.items() if key not in known}
        began = time.perf_counter()
        archs, parts = [p.arch for p in new.values()], [p.images for p in new.values()]
        results = evaluate_batch(net, archs, task, images=parts)
        share = (time.perf_counter() - began) / max(len(new), 1)
        known.update((key, (result, share)) for key, result in zip(new, results, strict=True))
        return [known[p.arch.digest, p.images][0] for p in proposals]

    entrant = cell.entrant
    strategy = make_strategy(entrant.strategy, space, cell.seed, entrant.options)
    passes, seconds = 0, 0.0
    if isinstance(strategy, OneShot):
        passes, seconds = strategy.begin(net, task, place / "search.ckpt", report)
    images = len(task.data.val)
    allowed = affordable(plan.trials, images, passes)
    study = Study.journal(place / "study.journal", space)
    recipe = loaded.inputs.recipe
    outcome = search(
        strategy,
        score,
        study,
        trials=allowed,
        batch=recipe.batch,
        images=images,
        report=report,
    )
    record = Record(
        scored(study.entries(), space, known),
        passes,
        seconds,
        outcome.best.arch,
        outcome.best.result,
        evaluate(net, outcome.best.arch, glimpsed(task), "test"),
        allowed,
        outcome.exhausted,
        outcome.front.to_dict() if outcome.front else None,
    )
    write_atomic(place / "best.yaml", outcome.best.arch.to_yaml().encode())
    RunDirectory(place).write_json(SEARCHED, record.to_dict())
    (place / "search.ckpt").unlink(missing_ok=True)
    return record


def affordable(trials: int, images: int, spent: int) -> int:
    """Evaluations on so many images within both budgets, passes having been spent; at least one."""
    return max(1, min(trials, (trials * images - spent) // images))


def _read(path: Path) -> dict[str, Any]:
    return RunDirectory(path.parent).read_json(path.name, "trials", "results", "winner", "val")
