"""The command line: parses, calls, prints. Whatever it does, five lines of Python can do.

Command functions import what they need when they run: `noahnas --help` loads no torch.
"""

from __future__ import annotations

from typing import Annotated

import typer

from noahnas import __version__
from noahnas.cli.compare import compare
from noahnas.cli.data import data_app
from noahnas.cli.diagnose import diagnose
from noahnas.cli.imports import space_import
from noahnas.cli.look import plugins, predict, strategies
from noahnas.cli.reproduce import reproduce_app
from noahnas.cli.runs import retrain, search
from noahnas.cli.space import space_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Find the best small trainable parts for a frozen vision transformer.

    `noahnas search` alone runs a whole search on embedded data in a few minutes. With your
    own images and backbone:

    `noahnas search --data DIR --backbone vit_base_patch16_224.orig_in21k --space noah-vtab`""",
)
for command in (search, retrain, compare, diagnose, predict, strategies, plugins):
    app.command()(command)
space_app.command("import")(space_import)
app.add_typer(space_app, name="space")
app.add_typer(data_app, name="data")
app.add_typer(reproduce_app, name="reproduce")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"noahnas {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
