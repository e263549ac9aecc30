"""Winners of kept runs of micro-VTAB, retrained otherwise than they were."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from noahnas import Arch
from noahnas.errors import NoahnasError
from noahnas.inputs import Inputs
from noahnas.loaded import load
from noahnas.pipeline import start
from noahnas.progress import silent
from noahnas.rundir import RunDirectory

KEPT = Path(__file__).parent / "results" / "vit-nano"


def again(run: RunDirectory, *, epochs: int | None = None, precision: str = "") -> dict[str, Any]:
    """The result of a run's winner, retrained as it was but for one thing.

    Args:
        run: one that was kept.
        epochs: of retraining, in the place of those that it took.
        precision: in the place of its own.

    Raises:
        NoahnasError: if images or weights are no longer those of the run.
    """
    about, result = run.about, run.read_json("result.json", "arch")
    of = Inputs.from_dict(about["inputs"])
    taken = epochs or result.get("epochs", {}).get("taken")
    inputs = replace(
        of,
        recipe=of.recipe.retrained_for(taken) if taken else of.recipe,
        space=None,
        supernet=None,
        strategy="",
        options={},
        arch=Arch.from_dict(result["arch"]),
        precision=precision or about["precision"],
        threads=about["threads"],
    )
    if load(inputs, silent).digests() != about["digests"]:
        raise NoahnasError(f"{run.path} was run on other images or weights")
    with tempfile.TemporaryDirectory() as folder:
        return start(Path(folder) / "run", inputs)
