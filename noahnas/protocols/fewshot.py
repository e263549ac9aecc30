"""Few-shot learning: sets × shots, several seeds; a mean for each number of shots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, load_data
from noahnas.data.fewshot import SETS, check_few_shot, drawn, set_name
from noahnas.errors import DataError
from noahnas.progress import Report, silent
from noahnas.protocols import ours
from noahnas.protocols.cells import Cell, Results, Settings, cells
from noahnas.protocols.table import Table, beside, published, source

NAME = "few-shot"
SHOTS = (1, 2, 4, 8, 16)


def plan(settings: Settings, root: Path, sets: Sequence[str], shots: Sequence[int]) -> list[Cell]:
    """The runs of sets with annotation lists below `root`, which are all checked first.

    Raises:
        DataError: if a set is not there, or a list has faults.
    """
    folders = {name: _folder(root, name) for name in sets}
    for folder in folders.values():
        for count in shots:
            for seed in settings.seeds:
                check_few_shot(folder, count, seed)
    return [
        cell
        for name, folder in folders.items()
        for count in shots
        for cell in _cells(settings, f"{name}/shots-{count}", str(folder), count)
    ]


def plan_drawn(
    settings: Settings, spec: str, shots: Sequence[int], report: Report = silent
) -> list[Cell]:
    """The runs of one data source, its shots drawn by seed; it is loaded once, to be checked.

    Raises:
        DataError: if it cannot be loaded, a class has fewer training images than the largest
            number of shots, or a list of a directory that holds lists has faults.
    """
    if (Path(spec) / "annotations").is_dir():
        for count in shots:
            for seed in settings.seeds:
                check_few_shot(Path(spec), count, seed)
    else:
        fed = load_backbone(settings.backbone).preprocess
        options = LoadOptions(fed.size, 0, settings.on_error, report, fed.interpolation)
        data = load_data(spec, options)
        drawn(data, max(shots), settings.seeds[0])
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(spec).name).strip("-.")
    return [
        cell
        for count in shots
        for cell in _cells(settings, f"{name or 'data'}/shots-{count}", spec, count)
    ]


def _cells(settings: Settings, task: str, place: str, shots: int) -> list[Cell]:
    return list(cells(settings, task, lambda seed: f"few-shot:{place},shots={shots},seed={seed}"))


def _folder(root: Path, name: str) -> Path:
    known = SETS.get(name)
    for folder in (name, *(known.others if known else ())):
        if (root / folder / "annotations").is_dir():
            return root / folder
    hint = "" if known else f" (the paper's sets: {', '.join(SETS)})"
    raise DataError(f"{root} has no {name}/annotations with lists{hint}")


def table(settings: Settings, plan: Sequence[Cell], results: Results) -> Table:
    """Our figures for each number of shots, with the mean over sets."""
    groups: dict[str, dict[str, str]] = {}
    for cell in plan:
        name, _, shots = cell.task.rpartition("/shots-")
        known = set_name(name)
        title = f"{SETS[known].title if known else name}, {shots}"
        groups.setdefault(f"{shots} shot{'s' if shots != '1' else ''}", {})[cell.task] = title
    return Table(
        f"{NAME}: {settings.protocol.table}",
        groups,
        beside(published(NAME), settings.rows, ours.columns(settings, plan, results)),
        "",
        ours.notes(settings, source(NAME)),
    )
