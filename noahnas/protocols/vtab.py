"""VTAB-1k: nineteen tasks in three groups; the mean is that of the groups' means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from noahnas.data.vtab import TASKS, check_vtab, task_folder
from noahnas.protocols import ours
from noahnas.protocols.cells import Cell, Results, Settings, cells, check_budget
from noahnas.protocols.table import Table, beside, published, source

NAME = "vtab-1k"


def plan(settings: Settings, root: Path, tasks: Sequence[str]) -> list[Cell]:
    """The runs of some tasks, whose lists are all checked first.

    Raises:
        DataError: if a task is not there, or a list has faults.
        SpaceError: if nothing meets the budget beside a task's classifier.
    """
    folders = {task: task_folder(root, task) for task in tasks}
    for task, folder in folders.items():
        check_vtab(folder)
        check_budget(settings, TASKS[task].classes)
    return [
        cell
        for task, folder in folders.items()
        for cell in cells(settings, task, lambda _seed, f=folder: f"vtab:{f}")  # type: ignore[misc]
    ]


def table(settings: Settings, plan: Sequence[Cell], results: Results) -> Table:
    """The paper's Table 1 beside our figures, over the tasks that were run."""
    run = {cell.task for cell in plan}
    groups: dict[str, dict[str, str]] = {}
    for task, about in TASKS.items():
        if task in run:
            groups.setdefault(about.group, {})[task] = about.title
    return Table(
        f"{NAME}: {settings.protocol.table}",
        groups,
        beside(published(NAME), settings.rows, ours.columns(settings, plan, results)),
        "mean of group means",
        ours.notes(settings, source(NAME)),
        Counter(task.group for task in TASKS.values()),
    )
