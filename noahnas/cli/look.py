"""`noahnas predict`, `noahnas strategies` and `noahnas plugins`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from noahnas.cli.options import Json
from noahnas.cli.screen import print_json


def predict(
    run: Annotated[Path, typer.Argument(help="A finished run directory.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    as_json: Json = False,
) -> None:
    """Classify image files with a run's retrained winner."""
    from noahnas.export import load

    found = load(run).predict(images)
    if as_json:
        print_json([vars(prediction) for prediction in found])
        return
    from rich.table import Table

    from noahnas.report.console import Console

    table = Table("image", "class", "probability")
    for prediction in found:
        table.add_row(prediction.path, prediction.label, f"{prediction.probability:.3f}")
    Console().print(table)


def strategies(as_json: Json = False) -> None:
    """List the installed search strategies, their options and where each comes from."""
    from noahnas import registry
    from noahnas.strategy import GROUP, Strategy, options_of

    rows: list[dict[str, Any]] = []
    for name in registry.installed(GROUP):
        kind: type[Strategy] = registry.resolve(GROUP, name, "strategy")
        options = {key: parameter.default for key, parameter in options_of(kind).items()}
        origin = registry.origin(GROUP, name)
        rows.append({"name": name, "summary": kind.summary, "options": options, "from": origin})
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    from noahnas.report.console import Console

    table = Table("strategy", "what it does", "options (--set name=value)", "from")
    for row in rows:
        told = " ".join(f"{key}={value}" for key, value in row["options"].items()) or "none"
        table.add_row(row["name"], row["summary"], told, row["from"])
    Console().print(table)


def plugins(
    foreign: Annotated[
        bool, typer.Option("--foreign", help="Those alone that others brought.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List all that is plugged in, and the package that brings each; imports none of it.

    A strategy, module or data source runs its package's code when it is used. A run directory holds
    no code: it names plug-ins, which are looked up here.
    """
    from noahnas import registry

    rows: list[dict[str, str]] = []
    for kind in ("strategies", "modules", "data"):
        group = f"noahnas.{kind}"
        for name, point in registry.installed(group).items():
            brought = registry.origin(group, name)
            if not foreign or brought.partition(" ")[0] != "noahnas":
                rows.append({"kind": kind, "name": name, "code": point.value, "from": brought})
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    from noahnas.report.console import Console

    table = Table("kind", "name", "code", "from")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)
