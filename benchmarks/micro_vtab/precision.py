"""Whether fp32 and bf16 train alike: winners of micro-VTAB, retrained in the other precision.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/precision.py [--tasks emoji,climate,distance] [--seeds 0,1,2]
                                              [--row noah@micro-vtab-twentieth]

Each winner of a row in `results/vit-nano` is retrained in fp32 as it was in bf16: the same design,
images, seed and recipe, and tested once. Accuracies are kept in
benchmarks/results/micro_vtab_precision.json, where what is done is not done again; their paired
difference is printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from noahnas import Arch
from noahnas.errors import NoahnasError
from noahnas.files import json_text, write_atomic
from noahnas.inputs import Inputs
from noahnas.pipeline import start
from noahnas.protocols.answers import Scores, differences, points
from noahnas.rundir import RunDirectory, versions

KEPT = Path(__file__).parent / "results" / "vit-nano"
OUT = Path(__file__).parents[1] / "results" / "micro_vtab_precision.json"
OTHER = "fp32"


def retrained(run: RunDirectory) -> dict[str, Any]:
    """A run's accuracy on test, and that of its winner retrained in the other precision.

    Raises:
        NoahnasError: if the run was in that precision, or the images are not the same.
    """
    about, result = run.about, run.read_json("result.json", "arch", "test")
    if about["precision"] == OTHER:
        raise NoahnasError(f"{run.path} is in {OTHER} itself")
    of, taken = Inputs.from_dict(about["inputs"]), result.get("epochs", {}).get("taken")
    inputs = replace(
        of,
        recipe=of.recipe.retrained_for(taken) if taken else of.recipe,
        space=None,
        supernet=None,
        strategy="",
        options={},
        arch=Arch.from_dict(result["arch"]),
        precision=OTHER,
    )
    with tempfile.TemporaryDirectory() as folder:
        again = start(Path(folder) / "run", inputs)
        there = RunDirectory.open(Path(folder) / "run").about
    if there["digests"] != about["digests"]:
        raise NoahnasError(f"{run.path} was run on other images or weights")
    return {
        about["precision"]: result["test"]["accuracy"],
        OTHER: again["test"]["accuracy"],
        "seconds": round(again["cost"]["retrain"]["seconds"], 1),
    }


def main() -> None:
    """Do what is not done, and print the difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", default="emoji,climate,distance")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--row", default="noah@micro-vtab-twentieth")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(OUT.read_text())["runs"] if OUT.is_file() else {}
    names = [
        f"{task}/{given.row}/seed-{seed}"
        for seed in given.seeds.split(",")
        for task in given.tasks.split(",")
    ]
    for name in names:
        if name in found:
            continue
        found[name] = retrained(RunDirectory.open(KEPT / name))
        kept = {"versions": versions(), "runs": found}
        write_atomic(OUT, (json_text(kept, indent=1) + "\n").encode())
        print(name, found[name], flush=True)
    scores: dict[str, Scores] = {}
    for precision in ("bf16", OTHER):
        by_task: dict[str, dict[int, float]] = {}
        for name, each in found.items():
            task, row, seed = name.split("/")
            if row != given.row:
                continue
            by_task.setdefault(task, {})[int(seed.removeprefix("seed-"))] = each[precision]
        scores[precision] = by_task
    (told,) = differences(scores, OTHER, ["bf16"], {name: name for name in scores})
    print(f"{OTHER} less bf16: {points(told['difference'])} over {told['pairs']} pairs")


if __name__ == "__main__":
    main()
