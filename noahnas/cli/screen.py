"""What commands show: progress while they work, JSON, and how to go on after an interruption."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from noahnas.printable import printable
from noahnas.stopping import resumable

if TYPE_CHECKING:
    from noahnas.progress import Report
    from noahnas.report.comparison import Sheet
    from noahnas.report.console import Console

Told = Callable[[], str]  # what to do after an interruption; "" = nothing


class BadParameter(typer.BadParameter):
    """An option's value that cannot be, told so that any terminal can show it."""

    def __init__(self, message: str, **about: Any) -> None:
        super().__init__(printable(message), **about)


@contextmanager
def working(told: Told) -> Iterator[Report]:
    """Long work that may be interrupted; what it reports is shown on stderr."""
    import optuna

    from noahnas.report.console import Console
    from noahnas.report.progress import ProgressView

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with resumable(told) as heeding, ProgressView(Console(stderr=True)) as view:
        yield heeding(view.update)


def resumed_by(command: str, out: Path) -> Told:
    """How to go on in a directory, if anything was begun there."""

    def told() -> str:
        begun = (out / "run.json").is_file()
        return f"go on with: noahnas {command} --resume {shlex.quote(str(out))}" if begun else ""

    return told


def same_command() -> str:
    """That the command goes on when it is given again."""
    return f"the same command goes on:\n{shlex.join(['noahnas', *sys.argv[1:]])}"


def print_json(value: Any) -> None:
    """Print a result as JSON on stdout."""
    from noahnas.files import json_text

    typer.echo(json_text(value, indent=2, ascii_only=True))


def print_report(heading: str, sheets: Iterable[Sheet], texts: Iterable[str]) -> None:
    """Print a report on stdout: its heading, its tables, and sentences under them."""
    console = wide_console()

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    line(heading)
    for sheet in sheets:
        console.print(sheet.to_rich())
    for text in texts:
        line(text)


def wide_console() -> Console:
    """Standard output; where that is no terminal, so wide that no table is folded."""
    from noahnas.report.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=10_000)
