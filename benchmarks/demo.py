"""The search without options by each strategy, on one supernet, with what its task allows to learn.

    python benchmarks/demo.py [--out FILE.json] [--work DIR] [--seed N]

Trains the supernet once (in the run of `evolution`), hands it to `random`, `tpe` and `nni`
by `--supernet`, and writes every run's result. Each run is a real `noahnas search`; a run that is
there already is not repeated. Takes about six minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STRATEGIES = ("evolution", "random", "tpe", "nni")


def run(strategy: str, work: Path, seed: int) -> dict[str, Any]:
    """One search by the command line; its result as `--json` prints it."""
    out = work / strategy
    args = ["--resume", str(out)] if out.exists() else _args(strategy, work, seed)
    command = [sys.executable, "-m", "noahnas", "search", "--json", *args]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=-1).stdout)
    return found


def _args(strategy: str, work: Path, seed: int) -> list[str]:
    shared = [] if strategy == STRATEGIES[0] else ["--supernet", str(work / STRATEGIES[0])]
    out = ["--out", str(work / strategy), "--strategy", strategy, "--seed", str(seed)]
    return [*out, *shared]


def row(result: dict[str, Any]) -> str:
    """One line of the table that is printed."""
    cost, val, test = result["cost"], result["val"]["accuracy"], result["test"]["accuracy"]
    spent = sum(cost[name]["passes"] for name in cost)
    search = cost["search"]
    return (
        f"{result['strategy']:<10} {val:>6.1%} {test:>6.1%} {result['params']:>7,} "
        f"{result['evaluations']:>6} {search['passes']:>8,} {search['seconds']:>7.1f} {spent:>8,}"
    )


def main() -> None:
    """Run all four and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "demo.json")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "noahnas-demo")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = [run(strategy, args.work, args.seed) for strategy in STRATEGIES]
    print("strategy      val   test  params  archs   passes seconds    total")
    for result in results:
        print(row(result))
        del result["run"]
        for stage in result["cost"].values():
            stage.pop("reused", None)  # a place of this machine
    first = results[0]
    print(f"binding: {first['binding']}\nspread: {first['spread']}")
    print(f"linear probe, test: {first['probe']['accuracy']:.1%}")
    args.out.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    args.out.write_text(
        json.dumps({"seed": args.seed, **machine, "runs": results}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
