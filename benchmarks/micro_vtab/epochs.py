"""What it adds that val decides how long a winner is retrained, and what it would cost without.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/epochs.py [--tasks emoji,climate,distance] [--seeds 0,1,2]

`micro-vtab-chosen-epochs` tries two numbers of epochs on val for each winner, which takes more than
half of its passes. Each winner in `results/vit-nano` is retrained for the number that was not
taken, too, and tested once; so there are the same winners under both numbers, and under the choice.
They are held against the paper's recipe, and the choice against each number. Accuracies are kept in
benchmarks/results/micro_vtab_epochs.json, where what is done is not done again; when all of the
three tasks and seeds are there, it writes the section of docs/claims.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from again import KEPT, again
from columns import by_task, held, means

from noahnas.files import json_text, write_atomic
from noahnas.protocols.answers import Scores, compared, points
from noahnas.protocols.curve import CHARGED
from noahnas.recipe import Recipe
from noahnas.rundir import RunDirectory, versions

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import put

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_epochs.json"
ROW, PAPER = "noah@micro-vtab-chosen-epochs", "noah@micro-vtab-paper"
TASKS, SEEDS = ("emoji", "climate", "distance"), ("0", "1", "2")  # that the paper's recipe has
TRIED = tuple(map(str, Recipe.load("micro-vtab-chosen-epochs").retrain_epochs))


def measured(name: str) -> dict[str, Any]:
    """Accuracies on test of a run's winner after each number of epochs, and passes by stage."""
    run = RunDirectory.open(KEPT / name)
    result = run.read_json("result.json", "test", "epochs", "cost")
    taken = str(result["epochs"]["taken"])
    cost = {stage: result["cost"][stage]["passes"] for stage in CHARGED if stage in result["cost"]}
    found: dict[str, Any] = {"taken": taken, "test": {taken: result["test"]["accuracy"]}}
    retrain = {taken: cost.pop("retrain")}
    for other in TRIED:
        if other != taken:
            told = again(run, epochs=int(other))
            found["test"][other] = told["test"]["accuracy"]
            retrain[other] = told["cost"]["retrain"]["passes"]
    paper = RunDirectory.open(KEPT / name.replace(ROW, PAPER)).read_json("result.json", "test")
    return found | {"paper": paper["test"]["accuracy"], "passes": cost, "retrain": retrain}


def page(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The section of the page: a line for each way to settle the number, and for the choice."""
    chosen = "as val says"
    scores: dict[str, Scores] = {
        "paper": by_task({name: run["paper"] for name, run in runs.items()}),
        chosen: by_task({name: run["test"][run["taken"]] for name, run in runs.items()}),
    }
    passes = {
        chosen: statistics.fmean(
            sum(run["passes"].values()) + run["retrain"][run["taken"]] for run in runs.values()
        )
    }
    for epochs in TRIED:
        scores[epochs] = by_task({name: run["test"][epochs] for name, run in runs.items()})
        passes[epochs] = statistics.fmean(
            sum(run["passes"].values()) - run["passes"]["epochs"] + run["retrain"][epochs]
            for run in runs.values()
        )
    titles = {name: name for name in scores}
    ways = (*TRIED, chosen)
    against = compared(scores, [(way, "paper") for way in ways], titles)
    gains = compared(scores, [(chosen, epochs) for epochs in TRIED], titles)
    tasks = list(scores[chosen])
    lines = [
        f"| epochs | {' | '.join(tasks)} | mean | passes | less the paper's recipe | over tasks, "
        "by t | kept | what the choice adds |",
        "|---" * (len(tasks) + 1) + "|---:|---:|---:|---:|---|---:|",
    ]
    for way, found in zip(ways, against, strict=True):
        gain = next((points(each["difference"]) for each in gains if each["against"] == way), "–")
        cost = f"{passes[way] / 1000:,.0f}k"
        lines.append(f"| {way} | {means(scores[way])} | {cost} | {held(found)} | {gain} |")
    told = f"Means of {len(SEEDS)} seeds on test, %; the winners are the same."
    return "\n".join([*lines, "", told])


def main() -> None:
    """Do what is not done, and write the page when all is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default=",".join(SEEDS))
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(OUT.read_text())["runs"] if OUT.is_file() else {}
    for seed in given.seeds.split(","):
        for task in given.tasks.split(","):
            name = f"{task}/{ROW}/seed-{seed}"
            if name in found:
                continue
            found[name] = measured(name)
            kept = {"versions": versions(), "runs": found}
            write_atomic(OUT, (json_text(kept, indent=1) + "\n").encode())
            print(name, found[name], flush=True)
    whole = [f"{task}/{ROW}/seed-{seed}" for task in TASKS for seed in SEEDS]
    if all(name in found for name in whole):
        text = page({name: found[name] for name in whole})
        print(text)
        put("claims.md", "epochs", text)


if __name__ == "__main__":
    main()
