"""Doing a comparison: supernets, then every search on each, then retraining; each resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from noahnas.compare.plan import Plan, Shared, check_same, fitting
from noahnas.compare.progress import Grid
from noahnas.compare.record import Place, Record
from noahnas.compare.retrained import (
    Retrained,
    missing,
    retrained,
    retrained_one,
    retraining_passes,
)
from noahnas.compare.searched import Floor, searched, searching_passes
from noahnas.errors import NoahnasError, RunError, StrategyError
from noahnas.loaded import Loaded, load, reload
from noahnas.memory import release, settled
from noahnas.pipeline import described
from noahnas.progress import Progress, Report, silent
from noahnas.rundir import RunDirectory, reading
from noahnas.space import Arch, Space
from noahnas.stages import STAGES, cost_of_other
from noahnas.workers import Job, Workers


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


def carry_out(
    out: Path,
    plan: Plan,
    *,
    forgiving: bool = False,
    report: Report = silent,
    workers: Workers | None = None,
) -> Found:
    """Do all of a plan that is not done yet; all that can be wrong with it is found before.

    Args:
        out: a new or empty directory, or one where this comparison was begun; entrants, supernets
            and seeds may have been added.
        plan: what to compare.
        forgiving: leave out entrants that cannot search the space, with the reason.
        report: called while data is loaded and while the work is done.
        workers: do the work of a supernet each, then winners; None = this process.

    Raises:
        NoahnasError: of the kind of what is wrong.
    """
    if not (out / "run.json").is_file():
        return _first(out, plan, forgiving, report, workers)
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
        return _carried_out(run, plan, loaded, report, workers)


def _first(
    out: Path, plan: Plan, forgiving: bool, report: Report, workers: Workers | None
) -> Found:
    loaded = load(plan.inputs, report)
    plan = _checked(out, plan, loaded, forgiving)
    grid = plan.grid()
    known = {part: grid[part] for part in ("entrants", "supernets")}
    about = {"command": "compare"} | described(loaded) | {"grid": grid, "known": known}
    with RunDirectory.created(out, about) as run:
        return _carried_out(run, plan, loaded, report, workers)


def begun(out: Path) -> Plan:
    """The plan of a comparison that was begun.

    Raises:
        RunError: if there is none.
    """
    about = _began(RunDirectory.open(out))
    with reading(out / "run.json"):
        return Plan.from_dict(about["inputs"], about["grid"])


def _began(run: RunDirectory) -> dict[str, Any]:
    about = run.about
    if about.get("command") != "compare":
        raise RunError(f"{run.path} is the run of a {about.get('command')}, not of a comparison")
    return about


def _checked(out: Path, plan: Plan, loaded: Loaded, forgiving: bool) -> Plan:
    if plan.inputs.recipe.retrain_from == "supernet":
        raise RunError(
            "a comparison retrains an arch once, whichever supernets it was found on; take a "
            "recipe with retrain_from: backbone"
        )
    space = loaded.bound(plan.space)
    for supernet in plan.supernets:
        copied = (out / "supernets" / supernet.name / STAGES).is_file()
        if supernet.run and not copied:
            cost_of_other(Path(supernet.run), loaded.about(space))
    return fitting(plan, space, forgiving)


# --- the grid --------------------------------------------------------------------------------


@settled()
def _carried_out(
    run: RunDirectory, plan: Plan, loaded: Loaded, report: Report, workers: Workers | None
) -> Found:
    if workers:
        _ahead(run.path, plan, loaded, report, workers)
    grid = Grid(report, _work(run.path, plan, loaded))
    supernets: dict[str, Mapping[str, Any]] = {}
    floors: dict[str, Floor] = {}
    records: dict[Place, Record] = {}
    for shared in plan.supernets:
        done = searched(run.path, plan, shared, loaded, grid)
        release()
        supernets[shared.name], floors[shared.name] = done.cost, done.floor
        records |= {(label, shared.name, seed): r for (label, seed), r in done.records.items()}
        kept = tuple(e for e in plan.entrants if e.label not in done.failed)
        plan = replace(plan, entrants=kept, left_out={**plan.left_out, **done.failed})
        if not kept:
            told = "; ".join(f"{label}: {why}" for label, why in plan.left_out.items())
            raise StrategyError(f"no strategy could search to the end: {told}")
    if workers:
        _winners_ahead(run.path, plan, records, loaded, report, workers)
    again = dict(retrained(run.path, plan, records, loaded, grid))
    space = loaded.bound(plan.space)
    return Found(run.about, plan, loaded, space, supernets, floors, records, again)


def _ahead(out: Path, plan: Plan, loaded: Loaded, report: Report, workers: Workers) -> None:
    """Do each supernet and its searches in a worker; what is done is read afterwards.

    An entrant that fails on one supernet is left out of the later ones then, as it is in one
    process.
    """
    left = {s.name: searching_passes(out, plan, s, loaded) for s in plan.supernets}
    jobs = [
        Job(shared.name, partial(_args, _searched_apart, out, plan, shared))
        for shared in plan.supernets
        if left[shared.name]
    ]
    _swept(jobs, {job.name: left[job.name] for job in jobs}, plan, report, workers)


def _winners_ahead(
    out: Path,
    plan: Plan,
    records: Mapping[Place, Record],
    loaded: Loaded,
    report: Report,
    workers: Workers,
) -> None:
    """Retrain the winners in workers."""
    jobs = []
    for (digest, seed), arch in missing(out, plan, records).items():
        work = partial(_args, _retrained_apart, out, plan, arch, seed)
        jobs.append(Job(f"winner {digest} · seed {seed}", work))
    passes = retraining_passes(loaded)
    _swept(jobs, {job.name: passes for job in jobs}, plan, report, workers)


def _swept(
    jobs: Sequence[Job], passes: Mapping[str, int], plan: Plan, report: Report, workers: Workers
) -> None:
    if not jobs:
        return
    grid = Grid(report, sum(passes.values()))

    def ended(job: Job, found: Any) -> None:
        if isinstance(found, NoahnasError):
            raise found
        grid.done(passes[job.name])
        grid.part(f"{job.name} by a worker", {})(Progress("done", 1, 1, ""))

    workers.sweep(plan.inputs.device, jobs, ended)


def _args(*args: Any) -> tuple[Any, ...]:
    return args


def _searched_apart(out: Path, plan: Plan, shared: Shared) -> None:
    """What a worker does for a supernet."""
    loaded = reload(RunDirectory.open(out), silent, plan.inputs)
    searched(out, plan, shared, loaded, Grid(silent, 1))


def _retrained_apart(out: Path, plan: Plan, arch: Arch, seed: int) -> None:
    """What a worker does for a winner."""
    loaded = reload(RunDirectory.open(out), silent, plan.inputs)
    retrained_one(out, arch, seed, loaded, silent)


def _work(out: Path, plan: Plan, loaded: Loaded) -> int:
    """Passes that are still to be made, at most."""
    winners = len(plan.supernets) * len(plan.entrants) * len(plan.retrain_seeds)
    searches = sum(searching_passes(out, plan, shared, loaded) for shared in plan.supernets)
    return searches + winners * retraining_passes(loaded)
