"""`noahnas reproduce`: the paper's experiments, resumable by giving the same command again."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noahnas.cli.options import Device, Json, OnError, Threads, stopping

if TYPE_CHECKING:
    from noahnas.progress import Report
    from noahnas.protocols.cells import After, Cell, Settings
    from noahnas.protocols.table import Table

reproduce_app = typer.Typer(
    no_args_is_help=True,
    help="""Run an experiment of the NOAH paper and print its table beside yours.

    Each cell of the table is a run directory below --out: the search trains a supernet, searches it
    and retrains the winner; a baseline trains its one architecture. The same command again goes on
    where it was stopped. docs/protocols.md says how the data must lie.""",
)

Rows = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated: linear, full, vpt-deep[-TOKENS], adapter-DIM, lora-DIM, noah (the "
        "search). [default: linear,full,vpt-deep,adapter-8,lora-8,noah]"
    ),
]
Seeds = Annotated[str | None, typer.Option(help="Such as 0, 0-2 or 0,3. [default: the recipe's]")]
Habit = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="honest: test once, at the last epoch. paper: test every few epochs as well, and show "
        "the best of them beside it, as the paper's code does.",
    ),
]
RecipeOf = Annotated[
    str | None,
    typer.Option("--recipe", help="Hyper-parameters, a YAML file. [default: the experiment's own]"),
]
BackboneOf = Annotated[
    str | None, typer.Option("--backbone", help="As in search. [default: the recipe's, ViT-B/16]")
]
SpaceOf = Annotated[
    str | None, typer.Option("--space", help="As in search. [default: the recipe's]")
]
Budget = Annotated[
    str | None, typer.Option(help="Prompt parameters allowed, such as 0.64M; else the space's.")
]
OutOf = Annotated[
    Path | None,
    typer.Option("--out", help="Directory of the runs. [default: runs/reproduce-EXPERIMENT]"),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, list the runs, and train nothing.")
]
Root = Annotated[Path, typer.Option(help="Directory that holds the data sets.")]


@reproduce_app.command("vtab-1k")
def vtab_1k(
    root: Root,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated directory names. [default: all nineteen]")
    ] = None,
    rows: Rows = None,
    seeds: Seeds = None,
    protocol: Habit = "honest",
    recipe: RecipeOf = None,
    backbone: BackboneOf = None,
    space: SpaceOf = None,
    budget: Budget = None,
    on_error: OnError = "stop",
    device: Device = "auto",
    threads: Threads = None,
    out: OutOf = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """VTAB-1k: nineteen tasks of 1000 images; Table 1 of the paper.

    ROOT/TASK/ holds images and train800.txt, val200.txt, train800val200.txt, test.txt.
    """
    from noahnas.data.vtab import TASKS, task_name
    from noahnas.protocols import vtab

    wanted = [task_name(task) for task in _words(tasks)] if tasks else list(TASKS)
    settings = _settings(
        vtab.NAME, rows, seeds, protocol, recipe, backbone, space, budget, on_error, device, threads
    )
    plan = vtab.plan(settings, root.resolve(), [t for t in TASKS if t in wanted])
    place = out or _place(vtab.NAME)
    _reproduce(place, plan, lambda results: vtab.table(settings, plan, results), as_json, dry_run)


@reproduce_app.command("few-shot")
def few_shot(
    root: Annotated[
        Path | None, typer.Option(help="Directory that holds the sets with annotation lists.")
    ] = None,
    sets: Annotated[
        str | None, typer.Option(help="Comma-separated directory names. [default: the paper's]")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Instead of --root: a data source or directory; shots are drawn."),
    ] = None,
    shots: Annotated[str, typer.Option(help="Training images a class.")] = "1,2,4,8,16",
    rows: Rows = None,
    seeds: Seeds = None,
    protocol: Habit = "honest",
    recipe: RecipeOf = None,
    backbone: BackboneOf = None,
    space: SpaceOf = None,
    budget: Budget = None,
    on_error: OnError = "stop",
    device: Device = "auto",
    threads: Threads = None,
    out: OutOf = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Few-shot learning: five sets, 1 to 16 images a class, three seeds.

    ROOT/SET/annotations/ holds train_meta.list.num_shot_K.seed_S, val_meta.list and test_meta.list;
    ROOT/SET/images/ the images.
    """
    from noahnas.cli.runs import _data
    from noahnas.data.fewshot import SETS
    from noahnas.protocols import fewshot

    if (root is None) == (data is None):
        raise typer.BadParameter("give either --root or --data")
    if sets and data:
        raise typer.BadParameter("--sets goes with --root")
    settings = _settings(
        fewshot.NAME,
        rows,
        seeds,
        protocol,
        recipe,
        backbone,
        space,
        budget,
        on_error,
        device,
        threads,
    )
    counts = _numbers(shots, "--shots")
    if min(counts) < 1:
        raise typer.BadParameter("shots is at least 1", param_hint="--shots")
    if data:
        plan = fewshot.plan_drawn(settings, _data(data), counts)
    else:
        assert root is not None  # one of the two is given
        wanted = _words(sets) if sets else list(SETS)
        plan = fewshot.plan(settings, root.resolve(), wanted, counts)
    place = out or _place(fewshot.NAME)
    _reproduce(
        place, plan, lambda results: fewshot.table(settings, plan, results), as_json, dry_run
    )


@reproduce_app.command("domain-generalisation")
def domain_generalisation(
    root: Root,
    shots: Annotated[int, typer.Option(min=1, help="Training images a class.")] = 16,
    targets: Annotated[
        str, typer.Option(help="Comma-separated test sets.")
    ] = "imagenetv2,imagenet-sketch,imagenet-adversarial,imagenet-rendition",
    rows: Rows = None,
    seeds: Seeds = None,
    protocol: Habit = "honest",
    recipe: RecipeOf = None,
    backbone: BackboneOf = None,
    space: SpaceOf = None,
    budget: Budget = None,
    on_error: OnError = "stop",
    device: Device = "auto",
    threads: Threads = None,
    out: OutOf = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Domain generalisation: trained on ImageNet's shots, tested on V2, Sketch, A and R.

    ROOT/imagenet/annotations/ holds the lists of train, val and test; ROOT/TARGET/annotations/
    val_meta.list those of a target.
    """
    from noahnas.data.domains import SOURCE
    from noahnas.protocols import domains

    settings = _settings(
        domains.NAME,
        rows,
        seeds,
        protocol,
        recipe,
        backbone,
        space,
        budget,
        on_error,
        device,
        threads,
    )
    wanted = [target for target in _words(targets) if target != SOURCE]
    plan = domains.plan(settings, root.resolve(), shots, wanted)
    place = out or _place(domains.NAME)
    _reproduce(
        place,
        plan,
        lambda results: domains.table(settings, plan, results, place, wanted),
        as_json,
        dry_run,
        domains.scorer(root.resolve(), shots, wanted),
    )


def _settings(
    name: str,
    rows: str | None,
    seeds: str | None,
    habit: str,
    recipe: str | None,
    backbone: str | None,
    space: str | None,
    budget: str | None,
    on_error: str,
    device: str,
    threads: int | None,
) -> Settings:
    from noahnas.cli.runs import _file
    from noahnas.protocols.cells import protocol_of, settle
    from noahnas.protocols.rows import DEFAULT, parse_row
    from noahnas.recipe import Recipe
    from noahnas.space import Space
    from noahnas.space.document import parse_count

    if habit not in ("honest", "paper"):
        raise typer.BadParameter("it is honest or paper", param_hint="--protocol")
    followed = Recipe.load(recipe or name)
    protocol = protocol_of(followed, name)
    chosen = Space.load(space or protocol.space)
    if budget:
        try:
            chosen = chosen.with_budget(parse_count(budget))
        except ValueError as e:
            raise typer.BadParameter(str(e), param_hint="--budget") from None
    return settle(
        followed,
        name,
        [parse_row(row, protocol) for row in (_words(rows) if rows else DEFAULT)],
        _numbers(seeds, "--seeds") if seeds else protocol.seeds,
        backbone=_file(backbone or protocol.backbone),
        space=chosen,
        paper=habit == "paper",
        on_error=on_error,
        device=device,
        threads=threads,
    )


def _reproduce(
    out: Path,
    plan: Sequence[Cell],
    table: Callable[[Any], Table],
    as_json: bool,
    dry_run: bool,
    after: After = lambda *_: None,
) -> None:
    """Do what is not done, write the table beside the runs, print it."""
    import optuna

    from noahnas.files import write_atomic
    from noahnas.protocols.cells import run_cells, state

    if dry_run:
        states = {cell.name: state(out / cell.name) for cell in plan}
        lines = [f"{name}: {told}" for name, told in states.items()]
        typer.echo(json.dumps(states, indent=2) if as_json else "\n".join(lines))
        return

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    command = shlex.join(["noahnas", *sys.argv[1:]])
    with stopping(f"the same command goes on:\n{command}"):
        results = run_cells(out, plan, _watch, after)
    found = table(results)
    told = found.to_dict() | {"out": str(out), "runs": results}
    text = json.dumps(told, indent=2, ensure_ascii=False)
    write_atomic(out / "table.json", (text + "\n").encode())
    write_atomic(out / "table.md", found.to_markdown().encode())
    if as_json:
        typer.echo(text)
    else:
        _print(found, out)


@contextmanager
def _watch(name: str, number: int, total: int) -> Iterator[Report]:
    from rich.console import Console

    from noahnas.report.progress import ProgressView

    console = Console(stderr=True)
    console.print(f"[{number}/{total}] {name}", highlight=False, markup=False)
    with ProgressView(console) as view:
        yield view.update


def _print(found: Table, out: Path) -> None:
    from rich.console import Console

    from noahnas.report.protocol import protocol_tables

    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    for part in protocol_tables(found, console.width):
        console.print(part)
    for note in (*found.notes, f"Runs, table.md and table.json: {out}"):
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def _place(name: str) -> Path:
    return Path("runs") / f"reproduce-{name}"


def _words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found or len(set(found)) < len(found):
        raise typer.BadParameter(f"'{text}' names nothing, or something twice")
    return found


def _numbers(text: str, what: str) -> tuple[int, ...]:
    """Whole numbers from `0,3` or `0-2`."""
    found: list[int] = []
    for word in _words(text):
        low, dash, high = word.partition("-")
        if not low.isdecimal() or (dash and not (high.isdecimal() and int(low) <= int(high))):
            raise typer.BadParameter(f"'{word}' is neither a number nor a range", param_hint=what)
        found += range(int(low), int(high if dash else low) + 1)
    return tuple(dict.fromkeys(found))
