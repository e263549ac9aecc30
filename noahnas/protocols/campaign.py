"""Doing what was asked for of micro-VTAB, and writing its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noahnas.compare.progress import Grid
from noahnas.data.micro_vtab import NAME, unfetched
from noahnas.errors import DataError, NoahnasError, RunError
from noahnas.export import BEST
from noahnas.files import json_text, sweep, write_atomic
from noahnas.progress import Report, silent
from noahnas.protocols.cells import Cell, best_rate
from noahnas.protocols.designs import design, row_of
from noahnas.protocols.grid import merged, remember
from noahnas.protocols.micro import Asked, bound
from noahnas.protocols.micro_table import summary
from noahnas.protocols.prices import measured, passes, seconds
from noahnas.protocols.runs import check_begun, check_place, finished, run_cells, state
from noahnas.report.micro import to_markdown
from noahnas.report.micro_plots import plots
from noahnas.rundir import held
from noahnas.space.check import binding
from noahnas.workers import Workers

LOCK = "grid.lock"  # held while what has been asked for, or the table, is read and written


def carry_out(
    out: Path, asked: Asked, report: Report = silent, workers: Workers | None = None
) -> dict[str, Any]:
    """Do the figures asked for that are not done, write the table of all that is there, return it.

    What lies in `out` of earlier calls goes into the table as well. Several processes may work in
    one place, on different tasks.

    Raises:
        NoahnasError: of the kind of what is wrong; all that is there is checked before.
    """
    check_place(out)
    plan = asked.plan()
    note(out, asked)
    todo = {cell.name: passes(cell) for cell in plan}
    left = (sum(p.values()) for name, p in todo.items() if state(out / name) != "done")
    grid = Grid(report, sum(left), NAME)

    @contextmanager
    def watch(cell: Cell, why: str, number: int, total: int) -> Iterator[Report]:
        own = {} if why else todo[cell.name]
        yield grid.part(f"[{number}/{total}] {cell.name}{f' · {why}' if why else ''}", own)
        grid.done(sum(own.values()))

    run_cells(out, plan, watch, _lightened, workers)
    with held(out / LOCK, wait=True):  # so that the last table written is that of all
        told = summary(out, merged(out, asked))
        write(out, told)
    return told


def note(out: Path, asked: Asked) -> None:
    """Check and keep what is asked for now and was before; no other process comes in between.

    Raises:
        RunError: if what lies in `out` does not fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    with held(out / LOCK, wait=True):
        sweep(out)
        both = merged(out, asked)
        check_begun(out, _plan_of_all(out, both))
        remember(out, both)


def _plan_of_all(out: Path, both: Asked) -> list[Cell]:
    """The cells of what is asked for now, whose plan holds, and of what was before.

    Raises:
        RunError: if a recipe does not say any more how a row is trained that was asked for before.
    """
    try:
        return both.plan()
    except NoahnasError as error:
        raise RunError(
            f"{error} and which was asked for in {out} before; put that back, or choose another "
            "--out"
        ) from error


def _lightened(cell: Cell, path: Path, _report: Report) -> None:
    """A training that tried a learning rate was for its score: its weights are not kept."""
    if cell.inputs.held_out:
        (path / BEST).unlink(missing_ok=True)


def write(out: Path, told: Mapping[str, Any]) -> list[str]:
    """Write micro-vtab.json, micro-vtab.md and the plots; returns their names."""
    drawn = plots(told)
    pictures = [name for name in drawn if name.endswith(".png")]
    text = json_text(told, indent=1) + "\n"
    found = drawn | {
        f"{NAME}.md": to_markdown(told, pictures).encode(),
        f"{NAME}.json": text.encode(),
    }
    for name, content in found.items():
        write_atomic(out / name, content)
    return list(found)


def preview(out: Path, asked: Asked) -> dict[str, Any]:
    """What would be done: cells with their state, passes and seconds, estimated here and now.

    Raises:
        NoahnasError: if what lies in `out` does not fit, or the space has no budget.
    """
    check_place(out)
    plan = asked.plan()
    check_begun(out, _plan_of_all(out, merged(out, asked)))
    task = asked.figures[0].task
    space = bound(asked.settings, task)
    speeds = measured(plan, design(row_of("middle"), space, task, 0))
    done = finished(out, plan)
    cells: dict[str, dict[str, Any]] = {
        cell.name: {
            "state": state(out / cell.name),
            "passes": passes(cell),
            "seconds": round(seconds(cell, speeds), 1),
        }
        | ({"lr": best_rate(cell.rates, done)} if _chosen(cell, done) else {})
        for cell in plan
    }
    todo = [cell for cell in cells.values() if cell["state"] != "done"]
    bind = binding(space)
    return {
        "cells": cells,
        "binding": {
            "params": space.limits[1],
            "infeasible": None if bind.share is None else 1 - bind.share,
            "draws": bind.draws,
            "largest_feasible": bind.largest_feasible,
        },
        "passes_a_second": {kind: round(1 / each) for kind, each in speeds.items()},
        "to_do": {
            "cells": len(todo),
            "passes": sum(sum(cell["passes"].values()) for cell in todo),
            "seconds": round(sum(cell["seconds"] for cell in todo)),
        },
    }


def _chosen(cell: Cell, done: Mapping[str, Any]) -> bool:
    return bool(cell.rates) and all(name in done for name, _ in cell.rates)


def check(asked: Asked) -> None:
    """Find what is wrong with a wish before anything is done.

    Raises:
        NoahnasError: if nothing meets the budget, or there is none, by which rows are made equal;
            or a task was not fetched.
    """
    tasks = list(dict.fromkeys(figure.task for figure in asked.figures))
    for task in tasks:
        space = bound(asked.settings, task)
        if space.limits[1] is None:
            raise NoahnasError(
                f"the space '{space.name}' has no budget, by which rows are made equal; give one, "
                "such as --budget 43.1k"
            )
        space.check_budget()
    absent = unfetched(tasks)
    if absent:
        raise DataError(f"not fetched yet: {', '.join(absent)}; run `noahnas data fetch {NAME}`")
