"""How a short search should end: which winner to take, and what to retrain it from.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/heirs.py [--tasks emoji,climate,distance] [--seeds 7,8]

The cheaper recipes of micro-VTAB are settled here, without test: a quarter of a task's training
images is set apart and scored in its place, and the seeds are others. For each task and seed
supernets of 16 and 32 epochs are searched by accuracy and by loss, and the winners retrained, from
new weights or from those that they have in the supernet. What is done is kept after each task and
seed, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noahnas.compare.statistics import interval
from noahnas.data import Dataset, Split
from noahnas.evaluate import Scores
from noahnas.files import write_atomic
from noahnas.inputs import Inputs
from noahnas.loaded import Loaded, load
from noahnas.policy import policy
from noahnas.recipe import Recipe, Stage
from noahnas.retrain import retrain
from noahnas.search import Outcome, search
from noahnas.space import Space
from noahnas.strategy import make_strategy
from noahnas.study import Study
from noahnas.supernet import Supernet
from noahnas.train import train

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_heirs.json"
APART = 4  # one training image of so many is scored instead of test
SHORT = {
    "population": "20",
    "top": "5",
    "mutants": "10",
    "crossovers": "10",
    "m": "0.2",
    "s": "0.4",
}
FRESH = [(10, 1e-2), (20, 1e-2), (30, 1e-2)]  # epochs and learning rate of retraining
HEIRS = [(3, 3e-3), (5, 3e-3), (10, 1e-3), (10, 3e-3), (10, 1e-2), (20, 3e-3)]
FEW = {"fresh": [(20, 1e-2)], "heir": [(10, 3e-3)]}  # of a winner by accuracy
Row = dict[str, Any]


def set_apart(data: Dataset, seed: int) -> Dataset:
    """The data with a part of the training images in the place of test."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data.train)))  # (n)
    count = len(order) // APART

    def part(rows: torch.Tensor) -> Split:
        return Split(data.train.images[rows], data.train.labels[rows])

    return replace(data, train=part(order[count:]), test=part(order[:count]))


def recipes() -> dict[int, Recipe]:
    """By the epochs of the supernet: the recipe of a tenth, and one with half of its search."""
    whole = Recipe.load("micro-vtab-tenth")
    half = replace(
        whole,
        supernet=replace(whole.supernet, epochs=16, warmup_epochs=1),
        search=replace(whole.search, options=SHORT),
        trials=60,
        batch=20,
    )
    return {recipe.supernet.epochs: recipe for recipe in (half, whole)}


def inputs_of(recipe: Recipe, task: str, seed: int) -> Inputs:
    """A search of micro-VTAB by a recipe."""
    return Inputs(
        data=f"micro-vtab:{task}",
        backbone="vit-nano",
        recipe=recipe,
        seed=seed,
        precision="bf16",
        threads=1,
        space=Space.load("micro-vtab"),
    )


def found(loaded: Loaded, net: Supernet, space: Space, by: str, folder: Path) -> Outcome:
    """The recipe's search of a supernet, ranked by accuracy or by loss."""
    inputs = loaded.inputs
    recipe = inputs.recipe
    strategy = make_strategy(
        recipe.search.strategy, space, inputs.seed, dict(recipe.search.options)
    )
    scores = Scores(net, loaded.fed(recipe.search), by=by)
    return search(
        strategy,
        lambda proposals: scores([p.arch for p in proposals]),
        Study.journal(folder / f"{by}.journal", space),
        trials=recipe.trials,
        batch=recipe.batch,
    )


def rows_of(task: str, seed: int, folder: Path) -> Iterator[Row]:
    """What all retrainings of a task and seed scored."""
    for epochs, recipe in recipes().items():
        loaded = load(inputs_of(recipe, task, seed), lambda _: None)
        loaded = replace(loaded, task=replace(loaded.task, data=set_apart(loaded.task.data, seed)))
        space = loaded.bound(loaded.inputs.space or Space.load("micro-vtab"))
        net = loaded.supernet(space)
        train(
            net,
            loaded.fed(recipe.supernet),
            loaded.task.data.train,
            recipe.supernet,
            name="supernet",
            plan=policy(recipe.policy, space),
            seed=seed,
            checkpoint=folder / f"{epochs}.ckpt",
        )
        weights = {k: v.detach().clone() for k, v in net.trainable().items()}
        for by in ("accuracy", "loss"):
            best = found(loaded, net, space, by, _made(folder / str(epochs))).best
            ways = {"fresh": FRESH, "heir": HEIRS} if by == "loss" else FEW
            for start, stages in ways.items():
                for count, rate in stages:
                    stage: Stage = replace(recipe.retrain, epochs=count, lr=rate, warmup_epochs=1)
                    place = folder / f"{epochs}-{by}-{start}-{count}-{rate}.ckpt"
                    done = retrain(
                        best.arch,
                        loaded.fresh(stage),
                        loaded.fed(stage),
                        stage,
                        seed=seed,
                        checkpoint=place,
                        start=weights if start == "heir" else None,
                    )
                    assert done is not None  # as there is one process
                    yield {
                        "task": task,
                        "seed": seed,
                        "supernet": epochs,
                        "by": by,
                        "from": start,
                        "epochs": count,
                        "lr": rate,
                        "accuracy": done.result.accuracy,
                        "loss": done.result.loss,
                        "supernet_val": best.result.accuracy,
                        "passes": done.log.passes,
                        "seconds": round(done.log.seconds, 1),
                    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def table(rows: list[Row]) -> list[str]:
    """A line for each way, with the mean and the difference from new weights for 30 epochs."""
    ways: dict[tuple[Any, ...], dict[tuple[str, int], float]] = {}
    for row in rows:
        way = tuple(row[key] for key in ("supernet", "by", "from", "epochs", "lr"))
        ways.setdefault(way, {})[row["task"], row["seed"]] = row["accuracy"]
    lines = ["supernet  by        from   epochs  lr     accuracy  − fresh, 30 epochs"]
    for way, scores in sorted(ways.items(), key=str):
        epochs, by, start, count, rate = way
        plain = ways.get((epochs, "loss", "fresh", 30, 1e-2), {})
        tasks = sorted({task for task, _ in scores})
        seeds = sorted({seed for _, seed in scores})
        pairs = [
            [scores[t, s] - plain[t, s] for s in seeds if (t, s) in scores and (t, s) in plain]
            for t in tasks
        ]
        least = min(map(len, pairs))
        told = interval(np.array([each[:least] for each in pairs])).to_dict() if least else {}
        differs = " ".join(
            f"{100 * told[key]:+.1f}"
            for key in ("mean", "low", "high")
            if told.get(key) is not None
        )
        mean = 100 * statistics.fmean(scores.values())
        lines.append(
            f"{epochs:8}  {by:8}  {start:5}  {count:6}  {rate:<5g}  {mean:8.1f}  {differs}"
        )
    return lines


def main() -> None:
    """Do what is not done, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", default="emoji,climate,distance")
    parser.add_argument("--seeds", default="7,8")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows: list[Row] = json.loads(given.out.read_text()) if given.out.is_file() else []
    for seed in map(int, given.seeds.split(",")):
        for task in given.tasks.split(","):
            if any((row["task"], row["seed"]) == (task, seed) for row in rows):
                continue
            with tempfile.TemporaryDirectory() as folder:
                rows += rows_of(task, seed, Path(folder))
            write_atomic(given.out, (json.dumps(rows, indent=1) + "\n").encode())
            print(f"{task}, seed {seed}", *table(rows), sep="\n", flush=True)
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
