"""`noahnas reproduce micro-vtab`: are the paper's claims true, and what do they cost?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from noahnas.cli.experiment import Asked, numbers, place_of, words, workers_of
from noahnas.cli.screen import print_json, print_report, same_command, working
from noahnas.cli.shared import takes

DEFAULT = "linear,full,adapter,lora,vpt,max,middle,feasible,random,noah"


@takes(Asked, after="rows")
def micro_vtab(
    asked: Asked,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated tasks, or groups: natural, specialised, structured. [default: "
            "all ten]"
        ),
    ] = None,
    rows: Annotated[
        str,
        typer.Option(
            help="Comma-separated. adapter, lora and vpt: that module alone, as wide in all blocks "
            "as the budget allows; max, middle: the strategies; feasible: a random feasible design "
            "retrained; alone: the best of a few that are trained alone, without a supernet; "
            "random, noah: searches of one supernet. ROW@RECIPE follows another recipe than the "
            "table's: noah@micro-vtab-paper."
        ),
    ] = DEFAULT,
) -> None:
    """micro-VTAB: is the searched design better than each module alone, and than chance?

    Ten small tasks in VTAB's groups (`noahnas data fetch micro-vtab`), on the embedded ViT, under a
    budget that binds. Learning rates are chosen for each task on val with the first seed. The same
    command goes on where it was stopped; with other --tasks, --rows or --seeds and the same --out
    it adds to the table, which shows what is there and names what is missing. Two processes can
    share the work by tasks.

    Prints tables and answers; writes micro-vtab.json, micro-vtab.md and plots to --out.
    """
    from noahnas.backbone import load_backbone
    from noahnas.cli.given import file_of, space_of
    from noahnas.data.micro_vtab import TASKS
    from noahnas.protocols import campaign
    from noahnas.protocols.cells import Settings, protocol_of
    from noahnas.protocols.micro import NAME, Figure, order, rows_of, tasks_of
    from noahnas.protocols.micro import Asked as Figures
    from noahnas.recipe import Recipe

    recipe = Recipe.load(asked.recipe or NAME)
    protocol = protocol_of(recipe, NAME)
    names, recipes = rows_of(words(rows))
    wanted = tasks_of(words(tasks)) if tasks else list(TASKS)
    seeds = numbers(asked.seeds, "--seeds") if asked.seeds else protocol.seeds
    backbone = file_of(asked.backbone or protocol.backbone)
    model: Any = load_backbone(backbone).model
    settings = Settings(
        recipe,
        protocol,
        (),
        seeds,
        backbone,
        len(model.blocks),
        space_of(asked.space or protocol.space, asked.budget),
        on_error=asked.on_error,
        device=asked.device,
        precision=asked.precision,
        threads=asked.threads,
    )
    figures = [Figure(task, row, seed) for task in wanted for row in names for seed in seeds]
    wish = Figures(settings, tuple(sorted(figures, key=order)), recipes)
    campaign.check(wish)
    out = asked.out or place_of(NAME)
    if asked.dry_run:
        _show_preview(campaign.preview(out, wish), asked.as_json)
        return
    _run(out, wish, asked)


def _run(out: Path, wish: Any, asked: Asked) -> None:
    """Do what is not done, with progress on stderr; print the tables."""
    from noahnas.protocols import campaign
    from noahnas.report.micro import heading, sentences, sheets

    with working(same_command) as report:
        told = campaign.carry_out(out, wish, report, workers_of(asked))
    if asked.as_json:
        print_json({"out": str(out)} | told)
        return
    where = f"micro-vtab.json, micro-vtab.md and plots: {out}"
    print_report(heading(told), sheets(told), (*sentences(told), "", *told["notes"], where))


def _show_preview(told: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    for name, cell in told["cells"].items():
        passes = ", ".join(f"{stage} {count:,}" for stage, count in cell["passes"].items())
        typer.echo(f"{name}: {cell['state']} · {passes} passes · about {cell['seconds']:,.0f} s")
    bound, todo = told["binding"], told["to_do"]
    largest = "feasible" if bound["largest_feasible"] else "infeasible"
    share = "–" if bound["infeasible"] is None else f"{bound['infeasible']:.1%}"
    typer.echo(
        f"budget: {bound['params']:,} parameters; {share} of uniform draws are "
        f"infeasible ({bound['draws']} drawn); the largest arch is {largest}"
    )
    speeds = ", ".join(f"{kind} {each:,}" for kind, each in told["passes_a_second"].items())
    typer.echo(f"passes a second, measured now: {speeds}")
    typer.echo(
        f"to do: {todo['cells']} cells, {todo['passes']:,} passes, about "
        f"{todo['seconds'] / 3600:.1f} hours"
    )
