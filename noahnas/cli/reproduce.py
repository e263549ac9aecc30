"""`noahnas reproduce`: the paper's experiments, resumable by giving the same command again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noahnas.cli.experiment import (
    Asked,
    carry_out,
    numbers,
    place_of,
    settings_of,
    watched,
    words,
)
from noahnas.cli.micro import micro_vtab
from noahnas.cli.screen import BadParameter
from noahnas.cli.shared import takes

reproduce_app = typer.Typer(
    no_args_is_help=True,
    help="""Run an experiment of the NOAH paper and print its table.

    Each cell of the table is a run directory below --out: the search trains a supernet, searches it
    and retrains the winner; a baseline trains its one architecture. The same command again goes on
    where it was stopped. docs/protocols.md says how the data must lie.""",
)
reproduce_app.command("micro-vtab")(micro_vtab)

Rows = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated: linear, full, vpt-deep[-TOKENS], adapter-DIM, lora-DIM, noah (the "
        "search). [default: linear,full,vpt-deep,adapter-8,lora-8,noah]"
    ),
]
Habit = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="honest: test once, at the last epoch. paper: test every few epochs as well, and show "
        "the best of them beside it, as the paper's code does.",
    ),
]
Root = Annotated[Path, typer.Option(help="Directory that holds the data sets.")]


@reproduce_app.command("vtab-1k")
@takes(Asked, after="protocol")
def vtab_1k(
    asked: Asked,
    root: Root,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated directory names. [default: all nineteen]")
    ] = None,
    rows: Rows = None,
    protocol: Habit = "honest",
) -> None:
    """VTAB-1k: nineteen tasks of 1000 images; Table 1 of the paper.

    ROOT/TASK/ holds images and train800.txt, val200.txt, train800val200.txt, test.txt.
    """
    from noahnas.data.vtab import TASKS, task_name
    from noahnas.protocols import vtab

    wanted = [task_name(task) for task in words(tasks)] if tasks else list(TASKS)
    settings = settings_of(vtab.NAME, asked, rows, protocol)
    plan = vtab.plan(settings, root.resolve(), [t for t in TASKS if t in wanted])
    place = asked.out or place_of(vtab.NAME)
    carry_out(place, plan, lambda results: vtab.table(settings, plan, results), asked)


@reproduce_app.command("few-shot")
@takes(Asked, after="protocol")
def few_shot(
    asked: Asked,
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
    protocol: Habit = "honest",
) -> None:
    """Few-shot learning: five sets, 1 to 16 images a class, three seeds.

    ROOT/SET/annotations/ holds train_meta.list.num_shot_K.seed_S, val_meta.list and test_meta.list;
    ROOT/SET/images/ the images.
    """
    from noahnas.cli.given import data_of
    from noahnas.data.fewshot import SETS
    from noahnas.protocols import fewshot

    if (root is None) == (data is None):
        raise BadParameter("give either --root or --data")
    if sets and data:
        raise BadParameter("--sets goes with --root")
    settings = settings_of(fewshot.NAME, asked, rows, protocol)
    counts = numbers(shots, "--shots")
    if min(counts) < 1:
        raise BadParameter("shots is at least 1", param_hint="--shots")
    if data:
        with watched(f"checking {data}") as report:
            plan = fewshot.plan_drawn(settings, data_of(data), counts, report)
    else:
        assert root is not None  # one of the two is given
        wanted = words(sets) if sets else list(SETS)
        plan = fewshot.plan(settings, root.resolve(), wanted, counts)
    place = asked.out or place_of(fewshot.NAME)
    carry_out(place, plan, lambda results: fewshot.table(settings, plan, results), asked)


@reproduce_app.command("domain-generalisation")
@takes(Asked, after="protocol")
def domain_generalisation(
    asked: Asked,
    root: Root,
    shots: Annotated[int, typer.Option(min=1, help="Training images a class.")] = 16,
    targets: Annotated[
        str, typer.Option(help="Comma-separated test sets.")
    ] = "imagenetv2,imagenet-sketch,imagenet-adversarial,imagenet-rendition",
    rows: Rows = None,
    protocol: Habit = "honest",
) -> None:
    """Domain generalisation: trained on ImageNet's shots, tested on V2, Sketch, A and R.

    ROOT/imagenet/annotations/ holds the lists of train, val and test; ROOT/TARGET/annotations/
    val_meta.list those of a target.
    """
    from noahnas.data.domains import SOURCE
    from noahnas.protocols import domains

    settings = settings_of(domains.NAME, asked, rows, protocol)
    wanted = [target for target in words(targets) if target != SOURCE]
    plan = domains.plan(settings, root.resolve(), shots, wanted)
    place = asked.out or place_of(domains.NAME)
    carry_out(
        place,
        plan,
        lambda results: domains.table(settings, plan, results, place, wanted),
        asked,
        domains.scorer(root.resolve(), shots, wanted),
    )
