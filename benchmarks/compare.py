"""Strategies head-to-head on the shipped ViT: two tasks, a budget that binds, many seeds.

    python benchmarks/compare.py [--quick] [--tasks distance,count] [--work DIR] [--docs DIR]

For each task a `noahnas compare`: space `demo` on `vit-nano` (the largest arch is infeasible, a
fifth of the paper prior passes), strategies of every kind, 10 seeds × 3 supernets, 200 trials; the
winners of 3 seeds are retrained. One thread. It may be interrupted and started again: what is done
is kept in --work. The recipe is recipes/short.yaml; forwards are in bf16.

Writes the report, its JSON and its plots to --docs/TASK, and the table of all tasks to the screen.
`--quick` does the same with 2 seeds × 1 supernet, 12 trials and short trainings, in minutes. In
full a task takes up to 9 600 000 passes of evaluation (an hour and a half at 1800 images a second),
less what strategies share where they propose the same arch on the same supernet.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPE = HERE / "recipes" / "short.yaml"
REPORT = ("compare.json", "compare.md", "*.png", "*.svg")
FULL = {"--seeds": "0-9", "--supernet-seeds": "0-2", "--trials": "200", "--retrain-seeds": "0-2"}
QUICK = {
    "--seeds": "0-1",
    "--supernet-seeds": "0",
    "--trials": "12",
    "--retrain-seeds": "0",
    "--supernet-epochs": "2",
    "--retrain-epochs": "1",
}
STRATEGIES = "random,evolution,tpe,nni,local,bandit,predictor,nsga2,max,middle,single"


def compared(task: str, out: Path, strategies: str, quick: bool) -> dict[str, Any]:
    """One task's comparison, begun or gone on with; what compare.json holds."""
    sizes = QUICK if quick else FULL
    options = [word for pair in sizes.items() for word in pair]
    command = [
        *(sys.executable, "-m", "noahnas", "compare", "--strategies", strategies),
        *("--data", task, "--backbone", "vit-nano", "--space", "demo", "--precision", "bf16"),
        *("--recipe", str(RECIPE), "--threads", "1", "-o", str(out), "--json", *options),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # progress on stderr
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def keep(out: Path, place: Path) -> None:
    """Copy a finished report."""
    place.mkdir(parents=True, exist_ok=True)
    for pattern in REPORT:
        for file in out.glob(pattern):
            shutil.copy(file, place / file.name)


def line(label: str, told: dict[str, Any]) -> str:
    """A strategy's row of the table on the screen."""
    row = told["table"][label]
    val, test = (100 * row[key]["mean"] if row[key] else float("nan") for key in ("val", "test"))
    said = [
        f"{measure}: {found['verdict']} (p {found['p_corrected']:.3f})"
        for measure, rows in told["tests"]["measures"].items()
        for found in rows
        if found["label"] == label and "verdict" in found
    ]
    return f"{label:<12} val {val:5.1f} test {test:5.1f}  {'; '.join(said)}"


def main() -> None:
    """Compare on each task, keep the reports, print who beat random."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="minutes instead of hours")
    parser.add_argument("--tasks", default="distance,count")
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--docs", type=Path, help="[default: docs/compare, with --quick nowhere]")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    name = "noahnas-compare-quick" if args.quick else "noahnas-compare"
    work = args.work or Path(tempfile.gettempdir()) / name
    docs = args.docs or (None if args.quick else HERE.parent / "docs" / "compare")
    for task in args.tasks.split(","):
        told = compared(task, work / task, args.strategies, args.quick)
        print(f"{task}: {told['of']}, {told['about']['trials']} trials, {told['about']['digest']}")
        for label in told["table"]:
            print("  " + line(label, told))
        for note in told["notes"]:
            print("  " + note)
        if docs:
            keep(work / task, docs / task)


if __name__ == "__main__":
    main()
