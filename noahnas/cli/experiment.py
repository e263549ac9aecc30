"""What the commands of `noahnas reproduce` share: reading their options, and doing the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noahnas.cli.options import Device, Json, OnError, Precision, RayAddress, Threads, helpers
from noahnas.cli.screen import BadParameter, print_json, same_command, wide_console
from noahnas.stopping import resumable

if TYPE_CHECKING:
    from noahnas.progress import Report
    from noahnas.protocols.cells import Cell, Settings
    from noahnas.protocols.runs import After
    from noahnas.protocols.table import Table
    from noahnas.workers import Workers

MOST = 1000  # seeds or shots in a range


@dataclass(frozen=True)
class Asked:
    """The options that all experiments take."""

    seeds: Annotated[
        str | None, typer.Option(help="Such as 0, 0-2 or 0,3. [default: the recipe's]")
    ] = None
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="Hyper-parameters, a YAML file. [default: the experiment's own]"
        ),
    ] = None
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="As in search. [default: the recipe's]")
    ] = None
    space: Annotated[
        str | None, typer.Option("--space", help="As in search. [default: the recipe's]")
    ] = None
    budget: Annotated[
        str | None, typer.Option(help="Prompt parameters allowed, such as 0.64M; else the space's.")
    ] = None
    on_error: OnError = "stop"
    device: Device = "auto"
    precision: Precision = "fp32"
    threads: Threads = None
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that do the cells: the same table, sooner. Needs Ray: pip install "
            "'noahnas[ray]'. [default: this one, or all CPUs of --ray]",
        ),
    ] = None
    ray: RayAddress = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Directory of the runs. [default: runs/reproduce-EXPERIMENT]"
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list the runs, and train nothing.")
    ] = False
    as_json: Json = False


def settings_of(name: str, asked: Asked, rows: str | None, habit: str) -> Settings:
    """What all cells share, from options; the recipe fills in those that are not given."""
    from noahnas.cli.given import file_of, space_of
    from noahnas.protocols.cells import protocol_of, settle
    from noahnas.protocols.rows import DEFAULT, parse_row
    from noahnas.recipe import Recipe

    if habit not in ("honest", "paper"):
        raise BadParameter("it is honest or paper", param_hint="--protocol")
    followed = Recipe.load(asked.recipe or name)
    protocol = protocol_of(followed, name)
    return settle(
        followed,
        name,
        [parse_row(row, protocol) for row in (words(rows) if rows else DEFAULT)],
        numbers(asked.seeds, "--seeds") if asked.seeds else protocol.seeds,
        backbone=file_of(asked.backbone or protocol.backbone),
        space=space_of(asked.space or protocol.space, asked.budget),
        paper=habit == "paper",
        on_error=asked.on_error,
        device=asked.device,
        precision=asked.precision,
        threads=asked.threads,
    )


def workers_of(asked: Asked) -> Workers | None:
    """The workers that are asked for."""
    return helpers(asked.workers, asked.ray, asked.device)


def carry_out(
    out: Path,
    plan: Sequence[Cell],
    table: Callable[[Any], Table],
    asked: Asked,
    after: After = lambda *_: None,
) -> None:
    """Do what is not done, write the table beside the runs, print it."""
    import optuna

    from noahnas.files import json_text, write_atomic
    from noahnas.protocols.runs import check_begun, check_place, run_cells, state

    check_place(out)
    if asked.dry_run:
        check_begun(out, plan)
        states = {cell.name: state(out / cell.name) for cell in plan}
        if asked.as_json:
            print_json(states)
        else:
            typer.echo("\n".join(f"{name}: {told}" for name, told in states.items()))
        return

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with resumable(same_command) as heeding:

        @contextmanager
        def watch(cell: Cell, why: str, number: int, total: int) -> Iterator[Report]:
            told = f" · {why}" if why else ""
            with watched(f"[{number}/{total}] {cell.name}{told}") as report:
                yield heeding(report)

        results = run_cells(out, plan, watch, after, workers_of(asked))
    found = table(results)
    told = found.to_dict() | {"out": str(out), "runs": results}
    write_atomic(out / "table.json", (json_text(told, indent=2) + "\n").encode())
    write_atomic(out / "table.md", found.to_markdown().encode())
    if asked.as_json:
        print_json(told)
    else:
        _print(found, out)


@contextmanager
def watched(title: str) -> Iterator[Report]:
    """Show the progress of something, on stderr."""
    from noahnas.report.console import Console
    from noahnas.report.progress import ProgressView

    console = Console(stderr=True)
    console.print(title, highlight=False, markup=False)
    with ProgressView(console) as view:
        yield view.update


def _print(found: Table, out: Path) -> None:
    from noahnas.report.protocol import protocol_tables

    console = wide_console()
    for part in protocol_tables(found, console.width):
        console.print(part)
    for note in (*found.notes, f"Runs, table.md and table.json: {out}"):
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def place_of(name: str) -> Path:
    """Where an experiment's runs go unless told otherwise; always the same, so it can go on."""
    return Path("runs") / f"reproduce-{name}"


def words(text: str) -> list[str]:
    """Distinct words from `a,b`."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found or len(set(found)) < len(found):
        raise BadParameter(f"'{text}' names nothing, or something twice")
    return found


def numbers(text: str, what: str) -> tuple[int, ...]:
    """Whole numbers from `0,3` or `0-2`."""
    found: list[int] = []
    for word in words(text):
        low, dash, high = word.partition("-")
        if not low.isdecimal() or (dash and not (high.isdecimal() and int(low) <= int(high))):
            raise BadParameter(f"'{word}' is neither a number nor a range", param_hint=what)
        if int(high or low) - int(low) >= MOST:
            raise BadParameter(f"'{word}' is more than {MOST} numbers", param_hint=what)
        found += range(int(low), int(high if dash else low) + 1)
    return tuple(dict.fromkeys(found))
