"""Options that several commands share."""

from __future__ import annotations

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
        "seed), or a set that comes with noahnas: "
        "count, distance, heading, x-position, digits."
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
    str, typer.Option("--recipe", help="Hyper-parameters: default, paper, or a YAML file.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of training and search.")]
SplitSeed = Annotated[
    int, typer.Option(min=0, help="Seed of the split, for data without train, val and test.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU when there is one), cpu or cuda.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="PyTorch threads. [default: 1 for a small backbone, else all cores]"),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of this stage, instead of the recipe's.")
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
