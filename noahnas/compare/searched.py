"""Searching one supernet: its training, its noise floor, and every search on it; each resumable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from noahnas.compare.glimpse import MOST, glimpsed
from noahnas.compare.plan import Cell, Plan, Shared
from noahnas.compare.progress import Grid
from noahnas.compare.record import Known, Record, scored
from noahnas.diagnose import ARCHS
from noahnas.errors import SpaceError, StrategyError
from noahnas.evaluate import Result, evaluate, evaluate_batch, latency
from noahnas.export import load_trained
from noahnas.files import sweep, write_atomic
from noahnas.loaded import Loaded
from noahnas.prefixes import Kept
from noahnas.progress import Progress, Report
from noahnas.rundir import RunDirectory, reading
from noahnas.search import search
from noahnas.space import Space
from noahnas.stages import STAGES, SUPERNET, supernet_stage
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
class Searched:
    """All that was done on one supernet."""

    cost: Mapping[str, Any]  # of its training
    floor: Floor
    records: Mapping[tuple[str, int], Record]  # by label and seed
    failed: Mapping[str, str]  # who could not search to the end, and why


def searching_passes(out: Path, plan: Plan, shared: Shared, loaded: Loaded) -> int:
    """Passes that are still to be made on a supernet, at most."""
    images = {name: len(loaded.task.data.split(name)) for name in ("val", "test")}
    place, passes = out / "supernets" / shared.name, 0
    if not (place / STAGES).is_file() and not shared.run:
        passes += _training(loaded)
    if not (place / FLOOR).is_file():
        passes += _archs(loaded) * (images["val"] + min(images["test"], MOST))
    todo = [c for c in plan.cells(shared) if not (out / c.place / SEARCHED).is_file()]
    return passes + len(todo) * plan.trials * images["val"]


def searched(out: Path, plan: Plan, shared: Shared, loaded: Loaded, grid: Grid) -> Searched:
    """Train or copy a supernet, measure its noise floor, search it: what is not done of that.

    Raises:
        RunError: if another process is at work on this supernet.
    """
    place = RunDirectory(out / "supernets" / shared.name)
    records, failed = _searches(out, place, plan, shared, loaded, grid)
    cost = place.read_json(STAGES, "supernet")["supernet"]
    floor = place.read_json(FLOOR, "val", "test")
    return Searched(cost, Floor(tuple(floor["val"]), tuple(floor["test"])), records, failed)


def _searches(
    out: Path, place: RunDirectory, plan: Plan, shared: Shared, loaded: Loaded, grid: Grid
) -> tuple[dict[tuple[str, int], Record], dict[str, str]]:
    """All searches on one supernet, by label and seed; and who failed, and why."""
    done: dict[tuple[str, int], Record] = {}
    todo: list[Cell] = []
    known: Known = {}
    for cell in plan.cells(shared):
        where = out / cell.place / SEARCHED
        if where.is_file():
            with reading(where):
                record = Record.from_dict(_read(where))
            known |= {t.key: (t.result, t.evaluating) for t in record.trials}
            done[cell.entrant.label, cell.seed] = record
        else:
            todo.append(cell)
    failed: dict[str, str] = {}
    if not todo and (place.path / FLOOR).is_file():
        return done, failed
    loaded = replace(loaded, inputs=replace(loaded.inputs, seed=shared.seed, supernet=shared.run))
    place.path.mkdir(parents=True, exist_ok=True)
    with place.locked():  # workers outlive their driver for a moment if it is killed
        net = _trained(place, loaded.bound(plan.space), loaded, grid)
        passes = plan.trials * len(loaded.task.data.val)
        for number, cell in enumerate(todo, start=1):
            label = cell.entrant.label
            if label not in failed:
                told = grid.part(f"[{number}/{len(todo)}] {cell}", {"search": passes})
                try:
                    record = _search(out / cell.place, plan, cell, loaded, net, known, told)
                except (StrategyError, SpaceError) as e:
                    failed[label] = f"on {shared.name} with seed {cell.seed}: {e}"
                else:
                    done[label, cell.seed] = record
                    known |= {t.key: (t.result, t.evaluating) for t in record.trials}
            grid.done(passes)
    return done, failed


def _trained(place: RunDirectory, space: Space, loaded: Loaded, grid: Grid) -> Supernet:
    """A supernet with its weights, trained or copied unless it was; and what its noise is."""
    inputs, task = loaded.inputs, loaded.fed(loaded.inputs.recipe.search)
    net = loaded.supernet(space)
    if not (place.path / STAGES).is_file() or not (place.path / SUPERNET).is_file():
        passes = 0 if inputs.supernet else _training(loaded)
        report = grid.part(place.path.name, {"supernet": passes})
        place.write_json(STAGES, {"supernet": supernet_stage(place, loaded, net, space, report)})
        grid.done(passes)
    (place.path / "supernet.ckpt").unlink(missing_ok=True)
    load_trained(place.path / SUPERNET, net)
    if not (place.path / FLOOR).is_file():
        count = _archs(loaded)
        archs = space.sample(np.random.default_rng([0, ARCHS]), count, prior="paper")
        task = glimpsed(task)
        passes = count * (len(task.data.val) + len(task.data.test))
        report = grid.part(place.path.name, {"noise floor": passes})
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
    """One search within both budgets; what others had scored before is looked up.

    The lock of the supernet's directory keeps other processes from it.
    """
    place.mkdir(parents=True, exist_ok=True)
    sweep(place)
    recipe = loaded.inputs.recipe
    task = loaded.fed(recipe.search)
    space = loaded.bound(plan.space).timed(lambda arch: latency(net, arch, task))
    kept = Kept()

    def score(proposals: Sequence[Proposal]) -> list[Result]:
        asked = {(p.arch.digest, p.images): p for p in proposals}
        new = {key: p for key, p in asked.items() if key not in known}
        began = time.perf_counter()
        archs, parts = [p.arch for p in new.values()], [p.images for p in new.values()]
        results = evaluate_batch(net, archs, task, images=parts, kept=kept)
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


def _archs(loaded: Loaded) -> int:
    """Random archs that show the noise floor: in a small comparison no more than it searches."""
    return min(ARCHS, max(FEWEST, loaded.inputs.recipe.trials))


def _training(loaded: Loaded) -> int:
    epochs = loaded.inputs.recipe.supernet.epochs
    return PASSES_PER_TRAINING_IMAGE * len(loaded.task.data.train) * epochs
