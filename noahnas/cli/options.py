"""What several commands share: options, and how an interruption ends them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[
    Path | None,
    typer.Option(help="Run directory to make; never one that exists. [default: runs/NAME-TIME]"),
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
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="Hyper-parameters: default, vtab-1k, few-shot, domain-generalisation, micro-vtab (and "
        "-tenth, -twentieth, -paper), or a YAML file.",
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
        help="Of forwards: fp32, bf16, or auto: bf16 on a GPU that has it, else fp32. One search "
        "uses one; a resumed run the one that it was begun in."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="PyTorch threads. [default: 1 for a small backbone, else all cores]"),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of this stage, instead of the recipe's.")
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


INTERRUPTED = 130  # exit code, as shells have it


@contextmanager
def stopping(told: str) -> Iterator[None]:
    """End the command on Ctrl-C or SIGTERM with one line, which says what to do, and exit 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; {told}\n" if told else "interrupted\n")
        raise typer.Exit(INTERRUPTED) from None
