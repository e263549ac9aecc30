"""`noahnas search` and `noahnas retrain`: what makes a run directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noahnas.cli.given import data_of, file_of, options_of, recipe_of, space_of, with_changes
from noahnas.cli.options import (
    DEFAULT_BACKBONE,
    DEFAULT_DATA,
    DEFAULT_SPACE,
    Backbone,
    Budget,
    Data,
    Device,
    Devices,
    Epochs,
    Json,
    Nodes,
    OnError,
    Out,
    Policy,
    Precision,
    RayAddress,
    RecipeName,
    Resume,
    RetrainEpochs,
    Seed,
    SpaceName,
    SplitSeed,
    Threads,
    Workers,
    helpers,
    refuse_inputs_beside_resume,
)
from noahnas.cli.screen import BadParameter, print_json, resumed_by, working
from noahnas.errors import NoahnasError

if TYPE_CHECKING:
    from noahnas.progress import Report
    from noahnas.ranks import Ranks
    from noahnas.recipe import Recipe
    from noahnas.space import Arch


def search(
    context: typer.Context,
    strategy: Annotated[
        str | None,
        typer.Option(help="See `noahnas strategies`. [default: the recipe's, evolution]"),
    ] = None,
    space: SpaceName = None,
    data: Data = DEFAULT_DATA,
    backbone: Backbone = DEFAULT_BACKBONE,
    recipe: RecipeName = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Architectures to evaluate, instead of the recipe's.")
    ] = None,
    supernet_epochs: Epochs = None,
    policy: Policy = None,
    retrain_epochs: RetrainEpochs = None,
    budget: Budget = None,
    supernet: Annotated[
        Path | None,
        typer.Option(help="Another run: search its trained supernet instead of training one."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="An option of the strategy, such as population=30; may be repeated."
        ),
    ] = None,
    seed: Seed = 0,
    split_seed: SplitSeed = 0,
    on_error: OnError = "stop",
    device: Device = "auto",
    devices: Devices = None,
    nodes: Nodes = None,
    workers: Workers = None,
    ray: RayAddress = None,
    precision: Precision = "fp32",
    threads: Threads = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="NOAHNAS_STORAGE",
            help="Keep the study there, so that several processes share it: postgresql://…, "
            "mysql://…, sqlite:///FILE, journal:FILE, redis://… or grpc://HOST:PORT. Beside "
            "--resume it gives the password, which no run directory holds. "
            "[default: a journal in the run directory]",
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study in --storage. [default: after its inputs]"),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(
            min=1,
            help="Seconds without a sign of life, after which the trials of another process on "
            "the study are taken over.",
        ),
    ] = 60.0,
    out: Out = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Train a supernet, search it, retrain the winner, test it once.

    Where the recipe lists several numbers of epochs (`retrain_epochs`), the winner is first trained
    on train for each, and the number that scores best on val is taken.

    The run directory holds run.json (inputs, digests, versions), the supernet, the study (an
    Optuna journal), best.yaml, best.safetensors and result.json. A run that was interrupted goes
    on with --resume RUN.
    """
    if resume:
        refuse_inputs_beside_resume(context, but=("storage",))
        from noahnas.pipeline import resume as go_on

        kind = device_of(resume)
        by_option = getattr(context.get_parameter_source("storage"), "name", "") == "COMMANDLINE"
        kept_elsewhere = by_option or "storage" in _inputs(resume)
        given = (storage or "") if kept_elsewhere else ""
        scorers = helpers(workers, ray, kind)
        with together(devices, nodes, kind) as ranks:
            _run(resume, lambda report: go_on(resume, report, given, ranks, scorers), as_json)
        return
    from noahnas.inputs import Inputs
    from noahnas.pipeline import start
    from noahnas.storage import absolute

    if study and not storage:
        raise BadParameter("it names a study in --storage", param_hint="--study")
    known = recipe_of(recipe, data)
    followed = with_changes(known, trials, supernet_epochs, retrain_epochs, policy)
    own = followed.search.options if strategy in (None, followed.search.strategy) else {}
    strategy = strategy or followed.search.strategy
    inputs = Inputs(
        data=data_of(data),
        backbone=file_of(backbone),
        recipe=followed,
        seed=seed,
        split_seed=split_seed,
        on_error=on_error,
        device=device,
        precision=precision,
        threads=threads,
        space=space_of(space or DEFAULT_SPACE.get(backbone, "noah-vtab"), budget),
        supernet=str(supernet.resolve()) if supernet else None,
        strategy=strategy,
        options={**own, **options_of(options or [])},
        storage=absolute(storage) if storage else "",
        study=study or "",
        patience=patience,
    )
    out = out or _new_out(strategy)
    scorers = helpers(workers, ray, device)
    with together(devices, nodes, device) as ranks:
        _run(out, lambda report: start(out, inputs, report, ranks, scorers), as_json)


def retrain(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(help="A run with a winner; its data, backbone and recipe are used too."),
    ] = None,
    arch: Annotated[
        Path | None, typer.Option(help="Architecture file (YAML), instead of the run's winner.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="As in search; else the run's.")] = None,
    backbone: Annotated[str | None, typer.Option(help="As in search; else the run's.")] = None,
    recipe: Annotated[str | None, typer.Option(help="As in search; else the run's.")] = None,
    retrain_epochs: RetrainEpochs = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train all weights of the backbone, too.")
    ] = False,
    seed: Seed = 0,
    split_seed: Annotated[
        int | None, typer.Option(min=0, help="As in search; else the run's.")
    ] = None,
    on_error: Annotated[str | None, typer.Option(help="As in search; else the run's.")] = None,
    device: Device = "auto",
    devices: Devices = None,
    nodes: Nodes = None,
    precision: Precision = "fp32",
    threads: Threads = None,
    out: Out = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Train one architecture on train + val and test it once, in a new run directory.

    Before that the recipe may have several numbers of epochs tried on val, as in search.
    `noahnas retrain RUN --seed 1` repeats a run's winner with another seed, for as many epochs;
    `noahnas retrain --arch my.yaml --data DIR --backbone NAME` trains an architecture of your own.
    """
    from noahnas.inputs import Inputs
    from noahnas.pipeline import resume as go_on
    from noahnas.pipeline import start

    if resume:
        refuse_inputs_beside_resume(context)
        kind = device_of(resume)
        with together(devices, nodes, kind) as ranks:
            _run(resume, lambda report: go_on(resume, report, ranks=ranks), as_json)
        return
    from noahnas.rundir import RunDirectory
    from noahnas.space import Arch

    if not run and not arch:
        raise BadParameter("name a RUN, or an architecture with --arch FILE")
    of = Inputs.from_dict(RunDirectory.open(run).about["inputs"]) if run else None
    chosen = Arch.load(arch) if arch else _winner(run or Path())
    known = of.recipe if of and not recipe else recipe_of(recipe, data or DEFAULT_DATA)
    if run and not (recipe or arch or data or backbone):
        known = _as_chosen(run, known)
    inputs = Inputs(
        data=data_of(data) if data else of.data if of else DEFAULT_DATA,
        backbone=file_of(backbone) if backbone else of.backbone if of else DEFAULT_BACKBONE,
        recipe=with_changes(known, retrain_epochs=retrain_epochs),
        seed=seed,
        split_seed=split_seed if split_seed is not None else of.split_seed if of else 0,
        on_error=on_error or (of.on_error if of else "stop"),
        device=device,
        precision=precision,
        threads=threads,
        arch=chosen,
        full=full,
    )
    out = out or _new_out("retrain")
    with together(devices, nodes, device) as ranks:
        _run(out, lambda report: start(out, inputs, report, ranks), as_json)


@contextmanager
def together(devices: int | None, nodes: int | None, device: str) -> Iterator[Ranks]:
    """The processes that train; another than rank 0 trains along here, and ends the command."""
    from noahnas.ranks import joined

    with joined(devices, nodes, device) as ranks:
        if not ranks.leads:
            from noahnas.follow import followed

            raise typer.Exit(followed(ranks))
        yield ranks
        ranks.share()  # there is nothing left to train


def device_of(run: Path) -> str:
    """The kind of device that a run was begun on."""
    from noahnas.rundir import RunDirectory

    return str(RunDirectory.open(run).about["device"])


def _run(out: Path, work: Callable[[Report], Mapping[str, Any]], as_json: bool) -> None:
    """Do the work with progress on stderr, then print its table or JSON on stdout."""
    from noahnas.report.console import Console
    from noahnas.report.tables import result_table
    from noahnas.rundir import reading

    with working(resumed_by("search", out)) as report:
        result = work(report)
    if as_json:
        print_json({"run": str(out)} | dict(result))
        return
    with reading(out / "result.json"):
        table = result_table(result, str(out))
    Console().print(table)


def _inputs(run: Path) -> Mapping[str, Any]:
    from noahnas.rundir import RunDirectory

    found: Mapping[str, Any] = RunDirectory.open(run).about["inputs"]
    return found


def _winner(run: Path) -> Arch:
    """What a run's search found, or the architecture that it retrained."""
    from noahnas.rundir import RunDirectory, reading
    from noahnas.space import Arch

    found = RunDirectory.open(run)
    if not (run / "best.yaml").is_file():
        raise NoahnasError(f"{run} has no winner yet; go on with it: noahnas search --resume {run}")
    if "space" not in found.about["inputs"]:
        return Arch.from_dict(found.about["inputs"].get("arch", {}))
    with reading(run / "stages.json"):
        return Arch.from_dict(found.read_json("stages.json", "search")["search"]["arch"])


def _as_chosen(run: Path, recipe: Recipe) -> Recipe:
    """A run's recipe with the number of epochs that it took, if it has tried several."""
    from noahnas.epochs import as_taken
    from noahnas.rundir import RunDirectory, reading
    from noahnas.stages import STAGES

    if not (run / STAGES).is_file():
        return recipe
    with reading(run / STAGES):
        return as_taken(recipe, RunDirectory(run).read_json(STAGES))


def _new_out(name: str) -> Path:
    stem = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    out, count = stem, 2
    while out.exists():
        out, count = stem.with_name(f"{stem.name}-{count}"), count + 1
    return out
