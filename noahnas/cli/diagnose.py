"""`noahnas diagnose`: is the supernet of a run any good?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from noahnas.cli.experiment import numbers
from noahnas.cli.options import Json, Prior
from noahnas.cli.screen import print_json, same_command, working

ARCHS = 20


def diagnose(
    run: Annotated[
        Path, typer.Argument(help="A directory of `noahnas search` with a trained supernet.")
    ],
    archs: Annotated[
        int,
        typer.Option(
            "--archs",
            "-n",
            min=3,
            help="How many architectures to draw and train: K. 30 tell more.",
        ),
    ] = ARCHS,
    prior: Annotated[
        Prior,
        typer.Option(
            help="How they are drawn, within the run's budget: paper (each depth uniform, then "
            "each dim) or exact (uniform over feasible architectures)."
        ),
    ] = "paper",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of each training, instead of the run's own for retraining."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Of the trainings, such as 0-1: each architecture once with each; two or more "
            "show how far training alone agrees with itself. [default: the run's]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Does the supernet rank architectures as training them alone does?

    A search trusts the scores of shared weights. This draws K architectures within the run's
    budget, trains each alone from the pretrained backbone — on train, with the recipe that
    retrains the winner — and scores both on val. It prints Kendall's τ and Spearman's ρ with
    bootstrap intervals, the noise of the split, the τ that this noise alone allows, and the winner
    of the search beside its median architecture; it warns where noise could explain what it sees.

    It takes K retrainings, and two for winner and median. All is kept in RUN/diagnose: the same
    command goes on after an interruption, even kill -9, and a larger --archs or more --seeds train
    only what is missing. The run itself is not changed.

    A quick look first: `noahnas diagnose RUN --archs 10 --epochs 5`
    """
    from noahnas.fidelity.run import diagnose as judged
    from noahnas.printable import printable
    from noahnas.report.console import Console
    from noahnas.report.fidelity import diagnosis_rows, diagnosis_table

    chosen = numbers(seeds, "--seeds") if seeds else ()
    with working(same_command) as report:
        found: dict[str, Any] = judged(
            run,
            archs=archs,
            prior=prior,
            epochs=epochs,
            seeds=chosen,
            report=report,
        ).to_dict()
    if as_json:
        print_json({"run": str(run)} | found)
        return
    rows, console = diagnosis_rows(found), Console()
    if console.is_terminal:
        console.print(diagnosis_table(rows, str(run)))
    else:
        typer.echo(printable("\n".join(f"{name:<22}{told}" for name, told in rows)))
