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
from pathlib import Path
from typing import Any

from again import KEPT, again
from columns import by_task

from noahnas.errors import NoahnasError
from noahnas.files import json_text, write_atomic
from noahnas.protocols.answers import differences, points
from noahnas.rundir import RunDirectory, versions

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_precision.json"
OTHER = "fp32"


def retrained(run: RunDirectory) -> dict[str, Any]:
    """A run's accuracy on test, and that of its winner retrained in the other precision.

    Raises:
        NoahnasError: if the run was in that precision, or the images are not the same.
    """
    own = run.about["precision"]
    if own == OTHER:
        raise NoahnasError(f"{run.path} is in {OTHER} itself")
    found = again(run, precision=OTHER)
    return {
        own: run.read_json("result.json", "test")["test"]["accuracy"],
        OTHER: found["test"]["accuracy"],
        "seconds": round(found["cost"]["retrain"]["seconds"], 1),
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
    own = {name: each for name, each in found.items() if name.split("/")[1] == given.row}
    scores = {
        precision: by_task({name: each[precision] for name, each in own.items()})
        for precision in ("bf16", OTHER)
    }
    (told,) = differences(scores, OTHER, ["bf16"], {name: name for name in scores})
    print(f"{OTHER} less bf16: {points(told['difference'])} over {told['pairs']} pairs")


if __name__ == "__main__":
    main()
