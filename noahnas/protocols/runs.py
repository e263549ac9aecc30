"""Doing the cells that are not done, after comparing what is there with what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, load_data
from noahnas.errors import NoahnasError, RunError, TrainingError
from noahnas.inputs import Inputs
from noahnas.memory import release, settled
from noahnas.pipeline import resume, start
from noahnas.progress import Report, silent
from noahnas.protocols.cells import Cell
from noahnas.rundir import RunDirectory
from noahnas.workers import Job, Workers

# Inputs that may differ between a run and the plan that goes on with it: which supernet is searched
# is decided by the cell's name, and its path changes when a table's directory is moved.
UNLIKE = ("threads", "supernet")
# What a recipe says of searching is no concern of a design that is retrained alone.
SEARCHED = ("name", "description", "supernet", "policy", "trials", "batch")
FAILED = "failed.json"  # in the place of a result, why a trial of a learning rate diverged

Watch = Callable[[Cell, str, int, int], AbstractContextManager[Report]]  # and why, number, of all
After = Callable[[Cell, Path, Report], None]


@settled()
def run_cells(
    out: Path,
    plan: Sequence[Cell],
    watch: Watch,
    after: After = lambda *_: None,
    workers: Workers | None = None,
) -> dict[str, dict[str, Any]]:
    """Results by cell name; what is done already is read, what was begun goes on.

    All that is there is checked before the first training. With `workers` these do the cells first,
    and here they are read.

    Raises:
        RunError: if a cell's directory holds a run with other inputs, or cells that share a data
            source were not run on the same data, or not with the same backbone.
        NoahnasError: of the kind of what goes wrong in a run.
    """
    check_begun(out, plan)
    _check_now(out, plan, watch)
    if workers:
        _ahead(out, plan, watch, workers)
    results: dict[str, dict[str, Any]] = {}
    for number, cell in enumerate(plan, start=1):
        inputs = cell.settled(out, results)
        done = state(out / cell.name)
        with watch(cell, "done" if done == "done" else "", number, len(plan)) as report:
            try:
                results[cell.name] = _run(out / cell.name, inputs, report)
            except TrainingError as e:
                if not cell.inputs.held_out:
                    raise
                results[cell.name] = _failure(out / cell.name, e)
                continue
            if done != "done":  # data may change while a long table is made
                _check_digests(out, [c for c in plan[:number] if c.inputs.data == inputs.data])
                release()
            after(cell, out / cell.name, report)
    return results


def _ahead(out: Path, plan: Sequence[Cell], watch: Watch, workers: Workers) -> None:
    """Do the cells that are not done in workers.

    Raises:
        NoahnasError: of the kind of what goes wrong in a run.
    """
    results = dict(finished(out, plan))
    numbers = {cell.name: number for number, cell in enumerate(plan, start=1)}
    todo = {cell.name: cell for cell in plan if cell.name not in results}

    def work(cell: Cell) -> tuple[Any, ...]:
        return _run_apart, out / cell.name, cell.settled(out, results)

    def ended(job: Job, found: Any) -> None:
        cell = todo[job.name]
        if isinstance(found, TrainingError) and cell.inputs.held_out:
            results[cell.name] = _failure(out / cell.name, found)
        elif isinstance(found, NoahnasError):
            raise found
        else:
            results[cell.name] = found
        with watch(cell, "", numbers[cell.name], len(plan)):
            pass

    jobs = [
        Job(cell.name, partial(work, cell), (*cell.needs, *filter(None, [cell.supernet_of])))
        for cell in todo.values()
    ]
    workers.sweep(plan[0].inputs.device, jobs, ended)


def _run_apart(path: Path, inputs: Inputs) -> dict[str, Any]:
    """What a worker does for a cell."""
    try:
        return _run(path, inputs, silent)
    finally:
        release()


def _failure(path: Path, error: TrainingError) -> dict[str, Any]:
    """What stands for the result of a learning rate that is none; it is not tried again."""
    RunDirectory(path).write_json(FAILED, {"failed": str(error)})
    return _result(path)


def check_place(out: Path) -> None:
    """Raise RunError if a table's directory is a file, or below one."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RunError(f"{there} is a file, so runs cannot be kept in {out}; choose another --out")


def check_begun(out: Path, plan: Sequence[Cell]) -> None:
    """Compare the inputs of all runs that are there with the plan's, and their digests.

    Raises:
        RunError: if a run was begun with other inputs, or runs that share a data source were not
            made with the same data, or not with the same backbone.
    """
    seeds = list(dict.fromkeys(cell.seed for cell in plan))
    done = finished(out, plan)
    for cell in plan:
        path = out / cell.name
        if state(path) == "to do":
            continue
        _check_order(path, cell, seeds)
        if all(name in done for name in cell.needs):
            _check_inputs(path, cell.settled(out, done))
        else:
            _check_inputs(path, cell.inputs, cell.left_open)
    _check_digests(out, plan)


def finished(out: Path, plan: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Results of the cells that are done, by name."""
    return {
        cell.name: _result(out / cell.name) for cell in plan if state(out / cell.name) == "done"
    }


def state(path: Path) -> str:
    """How far the run in a directory is: "done" (or diverged), "begun" or "to do"."""
    if (path / "result.json").is_file() or (path / FAILED).is_file():
        return "done"
    return "begun" if (path / "run.json").is_file() else "to do"


def _result(path: Path) -> dict[str, Any]:
    """What a run that is done came to, or why it came to nothing."""
    run = RunDirectory(path)
    if (path / FAILED).is_file():
        return run.read_json(FAILED, "failed")
    return run.read_json("result.json", "data", "cost")


def _run(path: Path, inputs: Inputs, report: Report) -> dict[str, Any]:
    if not (path / "run.json").is_file():
        return start(path, inputs, report)
    _check_inputs(path, inputs)
    if state(path) == "done":  # its weights may lie elsewhere: a table needs none
        return _result(path)
    return resume(path, report)


def _check_inputs(path: Path, asked: Inputs, but: Collection[str] = ()) -> None:
    """Raise RunError unless a run was begun with these inputs; those in `but` are left out."""
    began = Inputs.from_dict(RunDirectory.open(path).about["inputs"]).to_dict()
    wanted = Inputs.from_dict(asked.to_dict()).to_dict()
    if "space" not in began and "space" not in wanted:
        for inputs in (began, wanted):
            inputs["recipe"] = {k: v for k, v in inputs["recipe"].items() if k not in SEARCHED}
    keys = sorted({*began, *wanted} - {*UNLIKE, *but})
    differ = [key for key in keys if _differ(key, began, wanted)]
    if differ:
        raise RunError(
            f"{path} was begun with other inputs ({', '.join(differ)}); choose another --out, or "
            "remove it"
        )


def _check_order(path: Path, cell: Cell, seeds: Sequence[int]) -> None:
    """Raise RunError if a run searches that is to retrain another's winner, or the reverse."""
    searches = "space" in RunDirectory.open(path).about["inputs"]
    if not cell.row.searched or searches == (not cell.winner_of):
        return
    if searches:
        order = ",".join(map(str, [cell.seed, *(seed for seed in seeds if seed != cell.seed)]))
        did, fix = "the search, whose winner the other seeds retrain", f"--seeds {order}"
    else:
        did, fix = "a retraining of another seed's winner", "--seeds with that seed before others"
    raise RunError(
        f"{path} was begun as {did}; the first seed must stay the first: give {fix}, or choose "
        "another --out"
    )


def _differ(key: str, began: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    if key not in began or key not in wanted:
        return True
    if key == "backbone":
        return unplaced(began[key]) != unplaced(wanted[key])
    return bool(began[key] != wanted[key])


def unplaced(backbone: str) -> str:
    """A backbone's spec without the folder of its file, which another machine has elsewhere.

    What is in the file is compared by digest.
    """
    name, at, path = backbone.rpartition("@")
    return f"{name}{at}{Path(path).name}"


# --- what is there, before the first training -----------------------------------------------


def _check_now(out: Path, plan: Sequence[Cell], watch: Watch) -> None:
    """Compare the runs that are there with each other, and with what others would be run on.

    Data is loaded only for cells that are to be run beside others that were; from the cache, if it
    is as it was.
    """
    found = _check_digests(out, plan)
    missing = [cell for cell in plan if state(out / cell.name) != "done"]
    if not found or not missing:
        return
    backbone = load_backbone(plan[0].inputs.backbone)  # the same in all cells
    _check_same("backbone", {**found["backbone", ""], "": backbone.digest}, out)
    compared = set()
    for number, cell in enumerate(plan, start=1):
        data = cell.inputs.data
        if cell in missing and data not in compared and ("data", data) in found:
            compared.add(data)
            with watch(cell, "comparing its data", number, len(plan)) as report:
                inputs, fed = cell.inputs, backbone.preprocess
                options = LoadOptions(
                    fed.size, inputs.split_seed, inputs.on_error, report, fed.interpolation
                )
                now = load_data(data, options).digest
            _check_same("data", {**found["data", data], "": now}, out)


def _check_digests(out: Path, plan: Sequence[Cell]) -> dict[tuple[str, str], dict[str, str]]:
    """Digests of the runs that are there, by what they are of and by cell name.

    Raises:
        RunError: if cells that share it have different ones.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for cell in plan:
        if state(out / cell.name) != "to do":
            digests = RunDirectory.open(out / cell.name).about["digests"]
            found.setdefault(("backbone", ""), {})[cell.name] = digests["backbone"]
            found.setdefault(("data", cell.inputs.data), {})[cell.name] = digests["data"]
    for (what, _), by_cell in found.items():
        _check_same(what, by_cell, out)
    return found


def _check_same(what: str, by_cell: Mapping[str, str], out: Path) -> None:
    """Raise RunError unless all cells have one digest; that of what is there now is under ""."""
    groups: dict[str, list[str]] = {}
    for name, digest in by_cell.items():
        groups.setdefault(digest, []).append(name)
    if len(groups) < 2:
        return
    if "" in by_cell:
        others = ", ".join(name for name in by_cell if name)
        raise RunError(
            f"the {what} has changed since these runs of {out}: {others}; a table may not mix the "
            "two: bring back what it was, choose another --out, or remove those runs"
        )
    told = " | ".join(", ".join(names) for names in groups.values())
    raise RunError(
        f"runs of {out} that belong together were not made with the same {what}: {told}; remove "
        "those on one side, or choose another --out"
    )
