"""What makes retraining better at the same passes: rates, regularisation, batch size.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/retraining.py [--tasks emoji,climate,distance] [--seeds 7,8]
                                               [--ways "plain;smoothing .1"] [--epochs 60]

How the cheaper recipes of micro-VTAB retrain is settled here, on images that are in no table: as in
`heirs.py` a quarter of a task's training images is set apart, and it and val are scored instead of
test. Each task and seed has a random feasible design, which is trained in each way on what is left;
nothing is searched. What is done is kept after each training, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from heirs import inputs_of, set_apart

from noahnas.compare.statistics import interval
from noahnas.data import merge
from noahnas.files import write_atomic
from noahnas.loaded import load
from noahnas.recipe import Recipe
from noahnas.retrain import retrain

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_retraining.json"
RECIPE = "micro-vtab-fifth"  # whose retraining is changed
WAYS: dict[str, Mapping[str, Any]] = {
    "plain": {},  # the recipe's own
    "none": {"drop_path": 0.0, "dropout": 0.0},
    "rate 3e-3": {"lr": 3e-3},
    "rate 5e-3": {"lr": 5e-3},
    "drop-path .3": {"drop_path": 0.3},
    "dropout .3": {"dropout": 0.3},
    "smoothing .1": {"smoothing": 0.1},
    "mixup .2": {"mixup": 0.2},
    "mixup .8": {"mixup": 0.8},
    "cutmix 1": {"cutmix": 1.0},
    "erase .25": {"erase": 0.25},
    "decay .05": {"weight_decay": 0.05},
    "batch 32": {"batch_size": 32},
    "rate 3e-3, smoothing .1": {"lr": 3e-3, "smoothing": 0.1},
    "rate 5e-3, smoothing .1": {"lr": 5e-3, "smoothing": 0.1},
    "mixup .8, smoothing .1": {"mixup": 0.8, "smoothing": 0.1},
}
Row = dict[str, Any]


def row_of(way: str, task: str, seed: int, epochs: int) -> Row:
    """What the design of a task and seed scores, trained in one way."""
    recipe = Recipe.load(RECIPE)
    loaded = load(inputs_of(recipe, task, seed), lambda _: None)
    data = set_apart(loaded.task.data, seed)
    fed = replace(loaded.task, data=replace(data, test=merge(data.test, data.val)))
    assert loaded.inputs.space
    rng = np.random.default_rng([seed, zlib.crc32(f"retraining {task}".encode())])
    arch = loaded.bound(loaded.inputs.space).sample(rng, prior="paper")[0]
    stage = replace(recipe.retrain, **WAYS[way]).of_epochs(epochs)
    with tempfile.TemporaryDirectory() as folder:
        done = retrain(
            arch,
            loaded.fresh(stage),
            replace(loaded, task=fed).fed(stage),
            stage,
            seed=seed,
            checkpoint=Path(folder) / "weights",
            on="train",
        )
    assert done is not None  # as there is one process
    return {
        "way": way,
        "epochs": epochs,
        "task": task,
        "seed": seed,
        "accuracy": done.result.accuracy,
        "loss": done.result.loss,
        "passes": done.log.passes,
        "seconds": round(done.log.seconds, 1),
    }


def table(rows: list[Row]) -> list[str]:
    """A line for each way and number of epochs: mean accuracy, and the difference from plain."""
    ways: dict[tuple[int, str], dict[tuple[str, int], Row]] = {}
    for row in rows:
        ways.setdefault((row["epochs"], row["way"]), {})[row["task"], row["seed"]] = row
    lines = ["| epochs | way | accuracy, % | difference from plain | pairs | loss | passes |",
             "|---:|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for (epochs, way), found in sorted(ways.items()):
        plain = ways.get((epochs, "plain"), {})
        tasks = sorted({task for task, _ in found})
        pairs = [
            [row["accuracy"] - plain[key]["accuracy"] for key, row in found.items()
             if key[0] == task and key in plain]
            for task in tasks
        ]  # fmt: skip
        least = min(map(len, pairs))
        told = "–"
        if least and way != "plain":
            each = interval(np.array([p[:least] for p in pairs])).to_dict()
            told = f"{100 * each['mean']:+.1f}"
            if each["low"] is not None:
                told += f" [{100 * each['low']:+.1f}, {100 * each['high']:+.1f}]"
        mean = 100 * statistics.fmean(row["accuracy"] for row in found.values())
        loss = statistics.fmean(row["loss"] for row in found.values())
        passes = statistics.fmean(row["passes"] for row in found.values()) / 1000
        lines.append(f"| {epochs} | {way} | {mean:.1f} | {told} | {sum(map(len, pairs))} "
                     f"| {loss:.2f} | {passes:.0f}k |")  # fmt: skip
    return lines


def main() -> None:
    """Do what is not done, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", default="emoji,climate,distance")
    parser.add_argument("--seeds", default="7,8")
    parser.add_argument("--ways", default=";".join(WAYS), help="separated by semicolons")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if strange := set(given.ways.split(";")) - set(WAYS):
        parser.error(f"no way is called {', '.join(strange)} (known: {'; '.join(WAYS)})")
    rows: list[Row] = json.loads(given.out.read_text()) if given.out.is_file() else []
    keys = ("way", "task", "seed", "epochs")
    for seed in map(int, given.seeds.split(",")):
        for way in given.ways.split(";"):
            for task in given.tasks.split(","):
                wanted = (way, task, seed, given.epochs)
                if any(tuple(row[key] for key in keys) == wanted for row in rows):
                    continue
                rows.append(row_of(*wanted))
                write_atomic(given.out, (json.dumps(rows, indent=1) + "\n").encode())
                print(rows[-1], flush=True)
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
