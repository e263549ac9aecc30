"""`noahnas data`: data sources."""

from __future__ import annotations

import typer

from noahnas.cli.fetch import fetch

data_app = typer.Typer(no_args_is_help=True, help="Fetch data sets.")
data_app.command()(fetch)


@data_app.callback()
def _root() -> None:
    pass
