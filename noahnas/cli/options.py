"""Options that several commands share: one meaning, one name, one help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from noahnas.cli.screen import BadParameter

if TYPE_CHECKING:
    from noahnas.workers import Workers as Helpers

DEFAULT_BACKBONE, DEFAULT_DATA = "vit-nano", "count"
DEFAULT_SPACE = {"vit-nano": "demo", "vit-digits": "tiny"}
DEFAULT_RECIPE = {"count": "demo", "digits": "demo"}  # for a look

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Run directory to make; never one that exists. [default: runs/NAME-TIME]",
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(help="Go on with what was begun in this directory; its inputs are its own."),
]
Data = Annotated[
    str,
    typer.Option(
        help="Directory of images (train/CLASS, val/CLASS, test/CLASS; or CLASS alone, split by "
        "seed), a .csv or .npz file, or a source by name: count (`noahnas data` lists them)."
    ),
]
Backbone = Annotated[
    str,
    typer.Option(
        help="A timm vision transformer by name; a local safetensors, pth or npz file; "
        "NAME@FILE where the file does not tell its architecture; or an embedded one: "
        "vit-nano, vit-digits."
    ),
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        help="A shipped space (`noahnas space list`) or a space file. "
        "[default: demo with vit-nano, tiny with vit-digits, else noah-vtab]"
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Most prompt parameters, such as 0.64M, instead of the space's; its other limits stay."
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="What a supernet trains on, instead of the recipe's: paper, feasible or fair, "
        "joined by + with warm, and with sandwich or mixed; such as warm+mixed."
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Hyper-parameters: default, demo (less than half of its cost), vtab-1k, few-shot, "
        "domain-generalisation, micro-vtab (and -paper, -short-search, -small-batch and others of "
        "docs/protocols.md), or a YAML file. [default: default; for count and digits demo]",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of training and search.")]
SplitSeed = Annotated[
    int, typer.Option(min=0, help="Seed of the split, for data without train, val and test.")
]
OnError = Annotated[
    str,
    typer.Option(
        help="At an unreadable image, or a picture that stands in two splits: stop, or skip it."
    ),
]
Device = Annotated[str, typer.Option(help="auto (a GPU when there is one), cpu or cuda.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of forwards: fp32, or bf16, which is faster on a CPU with AMX and slower on one "
        "without AVX-512. One search uses one; "
        "a resumed run the one that it was begun in."
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="GPUs, or processes on the CPU, that train together: the same weights but for "
        "rounding, unless the recipe has dropout or drop-path, of which each draws its own. "
        "[default: 1, or what torchrun says]",
    ),
]
Nodes = Annotated[
    int | None, typer.Option(min=1, help="Machines, each of which runs this by torchrun.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that score architectures while searching: the same results, sooner. "
        "Needs Ray: pip install 'noahnas[ray]'. [default: this one, or all CPUs of --ray]",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="A Ray cluster whose workers score, such as head:6379; `auto` finds the one that "
        "runs on this machine.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="PyTorch threads. [default: 1 for a small backbone, else all cores]"),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of this stage, instead of the recipe's.")
]
RetrainEpochs = Annotated[
    int | None,
    typer.Option(
        min=1, help="Epochs of retraining, instead of those that the recipe has or tries."
    ),
]
Prior = Literal["paper", "exact"]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def helpers(count: int | None, address: str | None, device: str) -> Helpers | None:
    """The workers that are asked for, which can be had as far as can be told by now."""
    if count is None and address is None:
        return None
    from noahnas.workers import Workers as Helpers

    workers = Helpers(count, address)
    workers.check(device)
    return workers


def refuse_inputs_beside_resume(context: typer.Context, but: Sequence[str] = ()) -> None:
    """A resumed run has its inputs; one given beside --resume would be silently ignored."""
    given = [
        param.opts[0] if param.param_type_name == "option" else (param.name or "").upper()
        for param in context.command.params
        if param.name not in ("resume", "as_json", "devices", "nodes", "workers", "ray", *but)
        and getattr(context.get_parameter_source(param.name or ""), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise BadParameter(f"a resumed run has its own inputs; leave out {', '.join(given)}")
