"""Whether single modules were trained to convergence: those of the table, for twice the epochs.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/longer.py [--rows vpt@micro-vtab-small-batch]
                                           [--tasks emoji,climate,distance] [--seeds 0,1,2]

Each run of a row in `results/vit-nano` is made again for twice its epochs: the same images, seed,
rate and precision. It is tested once, and held against what it was, and against NOAH by the same
recipe. Accuracies are kept in benchmarks/results/micro_vtab_longer.json, where what is done is not
done again; several processes may work at once. Writes the section of docs/claims.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from again import KEPT, again
from columns import by_task, means

from noahnas.data.micro_vtab import TASKS
from noahnas.files import json_text, write_atomic
from noahnas.protocols.answers import compared, points
from noahnas.protocols.designs import title_of
from noahnas.rundir import RunDirectory, held, versions

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import put

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_longer.json"
LOCK = Path(tempfile.gettempdir()) / "noahnas-longer.lock"  # held while OUT is read and written


def measured(name: str) -> dict[str, Any]:
    """A run's accuracy on test, that for twice its epochs, and that of NOAH by the same recipe."""
    run = RunDirectory.open(KEPT / name)
    epochs = run.about["inputs"]["recipe"]["retrain"]["epochs"]
    longer = again(run, epochs=2 * epochs)
    task, row, seed = name.split("/")
    noah = RunDirectory(KEPT / task / f"noah@{row.partition('@')[2]}".removesuffix("@") / seed)
    return {
        "epochs": epochs,
        "accuracy": run.read_json("result.json", "test")["test"]["accuracy"],
        "longer": longer["test"]["accuracy"],
        "noah": noah.read_json("result.json", "test")["test"]["accuracy"],
        "passes": longer["cost"]["retrain"]["passes"],
    }


def page(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The section of the page: two lines for each row."""
    tasks = list(dict.fromkeys(name.split("/")[0] for name in runs))
    lines = [
        f"| row | epochs | {' | '.join(tasks)} | mean | passes | gained | higher in "
        "| NOAH less it |",
        "|---|---|" + "---|" * len(tasks) + "---:|---:|---:|---:|---:|",
    ]
    for row in dict.fromkeys(name.split("/")[1] for name in runs):
        own = {name: run for name, run in runs.items() if name.split("/")[1] == row}
        scores = {
            key: by_task({name: run[key] for name, run in own.items()})
            for key in ("accuracy", "longer", "noah")
        }
        asked = [("longer", "accuracy"), ("noah", "accuracy"), ("noah", "longer")]
        gained, before, after = compared(scores, asked, {key: key for key in scores})
        epochs = int(statistics.fmean(run["epochs"] for run in own.values()))
        passes = statistics.fmean(run["passes"] for run in own.values())
        more = f"{points(gained['difference'])} | {gained['won']} of {gained['pairs']}"
        for key, times, told, gain in (
            ("accuracy", 1, before, "– | –"),
            ("longer", 2, after, more),
        ):
            lines.append(
                f"| {title_of(row)} | {times * epochs} | {means(scores[key])} "
                f"| {passes * times / 2000:,.0f}k | {gain} | {points(told['difference'])} |"
            )
    seeds = len({name.split("/")[2] for name in runs})
    return "\n".join([*lines, "", f"Means of {seeds} seeds on test, %."])


def keep(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Add a run to what is kept; returns all that is, tasks and seeds in order."""
    with held(LOCK, wait=True):
        runs: dict[str, Any] = json.loads(OUT.read_text())["runs"] if OUT.is_file() else {}
        runs[name] = found
        runs = {each: runs[each] for each in sorted(runs, key=_order)}
        content = json_text({"versions": versions(), "runs": runs}, indent=1) + "\n"
        write_atomic(OUT, content.encode())
    return runs


def _order(name: str) -> tuple[str, int, str]:
    task, row, seed = name.split("/")
    return row, list(TASKS).index(task), seed


def main() -> None:
    """Do what is not done, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", default="vpt@micro-vtab-small-batch")
    parser.add_argument("--tasks", default="emoji,climate,distance")
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    runs: dict[str, Any] = json.loads(OUT.read_text())["runs"] if OUT.is_file() else {}
    for row in given.rows.split(","):
        for seed in given.seeds.split(","):
            for task in given.tasks.split(","):
                name = f"{task}/{row}/seed-{seed}"
                if name not in runs:
                    runs = keep(name, measured(name))
                    print(name, runs[name], flush=True)
    text = page(runs)
    print(text)
    put("claims.md", "longer", text)


if __name__ == "__main__":
    main()
