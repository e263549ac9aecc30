"""`noahnas compare`: strategies head-to-head."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noahnas.cli.options import (
    DEFAULT_BACKBONE,
    DEFAULT_DATA,
    DEFAULT_SPACE,
    Backbone,
    Budget,
    Data,
    Device,
    Epochs,
    Json,
    OnError,
    Policy,
    Precision,
    RayAddress,
    RecipeName,
    Resume,
    RetrainEpochs,
    SpaceName,
    SplitSeed,
    Threads,
    helpers,
    refuse_inputs_beside_resume,
)
from noahnas.cli.screen import BadParameter, print_json, print_report, resumed_by, working
from noahnas.errors import unknown

if TYPE_CHECKING:
    from noahnas.compare.plan import Plan, Shared
    from noahnas.workers import Workers

RANDOM = "random"  # what the others are tested against, unless told otherwise


def compare(
    context: typer.Context,
    strategies: Annotated[
        str,
        typer.Option(
            help="Comma-separated names (`noahnas strategies`), or all. LABEL=NAME gives one a "
            "label of its own, so that it can take part twice."
        ),
    ] = "random,evolution,tpe,nni",
    seeds: Annotated[str, typer.Option(help="Of the searches, such as 0-9 or 0,3.")] = "0-9",
    supernet_seeds: Annotated[
        str | None, typer.Option(help="Of the supernets to train. [default: 0-2]")
    ] = None,
    supernets: Annotated[
        list[Path] | None,
        typer.Option(
            "--supernet",
            help="Another run: search its trained supernet instead of training one; may be "
            "repeated.",
        ),
    ] = None,
    retrain_seeds: Annotated[
        str | None,
        typer.Option(help="Seeds whose winners are retrained, or none. [default: all]"),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Architectures that each search evaluates.")
    ] = 200,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of a strategy, such as evolution.population=30; may be repeated.",
        ),
    ] = None,
    against: Annotated[
        str, typer.Option(help="The strategy that the others are tested against.")
    ] = RANDOM,
    data: Data = DEFAULT_DATA,
    backbone: Backbone = DEFAULT_BACKBONE,
    space: SpaceName = None,
    budget: Budget = None,
    recipe: RecipeName = None,
    policy: Policy = None,
    supernet_epochs: Epochs = None,
    retrain_epochs: RetrainEpochs = None,
    split_seed: SplitSeed = 0,
    on_error: OnError = "stop",
    device: Device = "auto",
    precision: Precision = "fp32",
    threads: Threads = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes, each with a supernet and its searches, then with a winner: the same "
            "report, sooner. Needs Ray: pip install 'noahnas[ray]'. [default: this one, or all "
            "CPUs of --ray]",
        ),
    ] = None,
    ray: RayAddress = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Directory of the comparison; one that was begun goes on, and strategies, seeds "
            "and supernets may be added. [default: runs/compare-TIME]",
        ),
    ] = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Which strategy, and is it better than chance here?

    Trains supernets, lets every strategy search each of them with every seed under the same two
    budgets (distinct evaluations; images through the backbone), retrains the winners, tests them
    once, and says what that allows to conclude.

    Prints tables; writes compare.json, compare.md and plots (PNG, SVG) to the directory. Interrupt
    it at any time: `noahnas compare --resume DIR` goes on. docs/compare.md explains how to read it.
    """
    if resume:
        refuse_inputs_beside_resume(context)
        from noahnas.compare import begun

        plan = begun(resume)
        with_workers = helpers(workers, ray, plan.inputs.device)
        _carry_out(resume, plan, with_workers, forgiving=True, as_json=as_json)
        return
    from dataclasses import replace

    from noahnas.cli.experiment import numbers, words
    from noahnas.cli.given import data_of, file_of, options_of, recipe_of, space_of, with_changes
    from noahnas.compare.plan import Plan, entrants_of
    from noahnas.inputs import Inputs

    known = recipe_of(recipe, data)
    followed = with_changes(known, None, supernet_epochs, retrain_epochs, policy)
    if followed.retrain_epochs:  # all winners alike
        followed = followed.retrained_for(followed.retrain.epochs)
    inputs = Inputs(
        data=data_of(data),
        backbone=file_of(backbone),
        recipe=replace(followed, trials=trials),
        split_seed=split_seed,
        on_error=on_error,
        device=device,
        precision=precision,
        threads=threads,
        space=space_of(space or DEFAULT_SPACE.get(backbone, "noah-vtab"), budget),
        probe=False,
    )
    searched = numbers(seeds, "--seeds")
    if retrain_seeds == "none":
        again: tuple[int, ...] = ()
    else:
        again = numbers(retrain_seeds, "--retrain-seeds") if retrain_seeds else searched
    strange = sorted(set(again) - set(searched))
    if strange:
        raise BadParameter(
            f"{', '.join(map(str, strange))} is not among --seeds", param_hint="--retrain-seeds"
        )
    entrants = entrants_of(words(strategies), options_of(options or []))
    labels = [entrant.label for entrant in entrants]
    if against not in labels and against != RANDOM:
        raise BadParameter(
            unknown("label", against, labels) + ", those that take part", param_hint="--against"
        )
    plan = Plan(
        inputs,
        entrants,
        _supernets(supernets, supernet_seeds),
        searched,
        again,
        against,
    )
    place = out or Path("runs") / f"compare-{time.strftime('%Y%m%d-%H%M%S')}"
    with_workers = helpers(workers, ray, device)
    _carry_out(place, plan, with_workers, forgiving=strategies.strip() == "all", as_json=as_json)


def _supernets(runs: list[Path] | None, seeds: str | None) -> tuple[Shared, ...]:
    from noahnas.cli.experiment import numbers
    from noahnas.compare.plan import reused, trained_with

    if runs and seeds:
        raise BadParameter("give either --supernet or --supernet-seeds")
    return reused(runs) if runs else trained_with(numbers(seeds or "0-2", "--supernet-seeds"))


def _carry_out(
    out: Path, plan: Plan, workers: Workers | None, *, forgiving: bool, as_json: bool
) -> None:
    """Do what is not done, with progress on stderr; write the report, print it on stdout."""
    from noahnas.compare import compare as do
    from noahnas.protocols.runs import check_place
    from noahnas.report.comparison import heading, sheets

    check_place(out)
    with working(resumed_by("compare", out)) as report:
        told = do(out, plan, forgiving=forgiving, report=report, workers=workers)
    if as_json:
        print_json({"run": str(out)} | told)
        return
    texts = (*told["rules"], "", *told["notes"], f"compare.json, compare.md and plots: {out}")
    print_report(heading(told), sheets(told), texts)
