"""What makes retraining better at the same passes: rates and regularisation.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/retraining.py [--tasks emoji,climate,distance] [--seeds 7,8]
                                               [--ways "plain;smoothing .1"] [--epochs 60]

How the cheaper recipes of micro-VTAB retrain is settled here, without test: as in `heirs.py` a
quarter of a task's training images is set apart, and it and val are scored in its place. Each task
and seed has a random feasible design, which is trained in each way on what is left; nothing is
searched. What is done is kept after each training, and the same command goes on. Writes
benchmarks/results/micro_vtab_retraining.json and the table in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from heirs import inputs_of, set_apart

from noahnas.data import merge
from noahnas.files import write_atomic
from noahnas.loaded import load
from noahnas.protocols.answers import differences, points
from noahnas.recipe import Recipe
from noahnas.retrain import retrain

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import put

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_retraining.json"
RECIPE = "micro-vtab-fifth"  # whose retraining is changed
WAYS: dict[str, Mapping[str, Any]] = {
    "plain": {},  # that recipe's own
    "rate 3e-3": {"lr": 3e-3},
    "rate 5e-3": {"lr": 5e-3},
    "smoothing .1": {"smoothing": 0.1},
    "mixup .8": {"mixup": 0.8},
    "rate 3e-3, smoothing .1": {"lr": 3e-3, "smoothing": 0.1},
    "batch 16, rate 5e-3": {"batch_size": 16, "lr": 5e-3},
    "batch 16, rate 2.5e-3": {"batch_size": 16, "lr": 2.5e-3},
    "batch 16, rate 1e-2": {"batch_size": 16, "lr": 1e-2},
    "batch 16, rate 5e-3, smoothing .1": {"batch_size": 16, "lr": 5e-3, "smoothing": 0.1},
    "batch 16, rate 5e-3, decay .1": {"batch_size": 16, "lr": 5e-3, "weight_decay": 0.1},
    "batch 16, rate 5e-3, decay .5": {"batch_size": 16, "lr": 5e-3, "weight_decay": 0.5},
    "batch 16, rate 5e-3, decay 1.5": {"batch_size": 16, "lr": 5e-3, "weight_decay": 1.5},
    "batch 16, rate 5e-3, drop .2": {
        "batch_size": 16,
        "lr": 5e-3,
        "drop_path": 0.2,
        "dropout": 0.2,
    },
    "batch 16, rate 5e-3, mixup .2": {"batch_size": 16, "lr": 5e-3, "mixup": 0.2},
    "batch 8, rate 2.5e-3": {"batch_size": 8, "lr": 2.5e-3},
}
BASE = "batch 16, rate 5e-3, 16 epochs"  # as the recipe micro-vtab-small-batch retrains
Row = dict[str, Any]


def row_of(way: str, task: str, seed: int, epochs: int, precision: str) -> Row:
    """What the design of a task and seed scores, trained in one way."""
    recipe = Recipe.load(RECIPE)
    inputs = replace(inputs_of(recipe, task, seed), precision=precision)
    loaded = load(inputs, lambda _: None)
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
        "precision": precision,
        "accuracy": done.result.accuracy,
        "loss": done.result.loss,
        "passes": done.log.passes,
        "seconds": round(done.log.seconds, 1),
    }


def table(rows: list[Row]) -> list[str]:
    """A line for each way: mean accuracy, and the difference from BASE in that precision.

    Pairs are those of a task and a seed that both have.
    """
    ways: dict[str, list[Row]] = {}
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for row in sorted(rows, key=lambda row: (row["precision"], row["way"], row["epochs"])):
        name = f"{row['way']}, {row['epochs']} epochs, {row['precision']}"
        ways.setdefault(name, []).append(row)
        scores.setdefault(name, {}).setdefault(row["task"], {})[row["seed"]] = row["accuracy"]
    lines = ["| way | accuracy, % | difference from the first | pairs | loss | passes |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, found in ways.items():
        base = f"{BASE}, {found[0]['precision']}"
        mean, loss = (statistics.fmean(row[key] for row in found) for key in ("accuracy", "loss"))
        told = "– | –"
        if name != base and base in scores:
            (held,) = differences(scores, name, [base], {way: way for way in ways}) or (None,)
            told = f"{points(held['difference'])} | {held['pairs']}" if held else told
        passes = f"{found[0]['passes'] / 1000:.0f}k"
        lines.append(f"| {name} | {100 * mean:.1f} | {told} | {loss:.2f} | {passes} |")
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
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if strange := set(given.ways.split(";")) - set(WAYS):
        parser.error(f"no way is called {', '.join(strange)} (known: {'; '.join(WAYS)})")
    rows: list[Row] = json.loads(given.out.read_text()) if given.out.is_file() else []
    keys = ("way", "task", "seed", "epochs", "precision")
    for seed in map(int, given.seeds.split(",")):
        for way in given.ways.split(";"):
            for task in given.tasks.split(","):
                wanted = (way, task, seed, given.epochs, given.precision)
                if any(tuple(row[key] for key in keys) == wanted for row in rows):
                    continue
                rows.append(row_of(*wanted))
                write_atomic(given.out, (json.dumps(rows, indent=1) + "\n").encode())
                print(rows[-1], flush=True)
    print(*table(rows), sep="\n")
    if given.out == OUT:
        put("results.md", "retraining", "\n".join(table(rows)))


if __name__ == "__main__":
    main()
