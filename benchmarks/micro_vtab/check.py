"""Fetching and checking every task of micro-VTAB, as processes: from nothing, and again.

    python benchmarks/micro_vtab/check.py

Fetches into an empty cache of its own (270 MB of packages), checks each task twice, and writes
results/micro_vtab_check.json: counts, digest, and the seconds that the command itself told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from noahnas.data.micro_vtab import NAME, TASKS

RESULT = Path(__file__).parents[1] / "results" / "micro_vtab_check.json"


def noahnas(cache: str, *args: str) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "noahnas", *args, "--json"], cwd=cache, check=True,
        stdout=subprocess.PIPE, text=True, env=os.environ | {"NOAHNAS_CACHE": cache},
    )  # fmt: skip
    return json.loads(done.stdout)


def main() -> None:
    """Fetch, fetch again, check twice."""
    with tempfile.TemporaryDirectory() as cache:
        fetched = {one["task"]: one for one in noahnas(cache, "data", "fetch", NAME)}
        again = {one["task"]: one for one in noahnas(cache, "data", "fetch", NAME)}
        rows = []
        for task, about in TASKS.items():
            spec = ["data", "check", f"{NAME}:{task}", "--no-sheet"]
            cold, warm = noahnas(cache, *spec), noahnas(cache, *spec)
            rows.append(
                {
                    "task": task,
                    "group": about.group,
                    "classes": len(cold["classes"]),
                    "images": cold["images"],
                    "digest": cold["digest"],
                    "same_digest_again": warm["digest"] == cold["digest"],
                    "pictures_in_two_splits": cold["overlap"],
                    "fetch_seconds": round(fetched[task]["seconds"], 2),
                    "fetch_again": again[task]["state"],
                    "fetch_again_seconds": round(again[task]["seconds"], 2),
                    "check_seconds": cold["seconds"],
                    "check_again_seconds": warm["seconds"],
                }
            )
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    print("| task | train / val / test | classes | digest | fetch, s | again | check, s | again |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        counts = " / ".join(map(str, row["images"].values()))
        seconds = [row[k] for k in ("fetch_seconds", "fetch_again_seconds", "check_seconds")]
        told = " | ".join(f"{s:.1f}" for s in (*seconds, row["check_again_seconds"]))
        print(f"| {row['task']} | {counts} | {row['classes']} | `{row['digest']}` | {told} |")


if __name__ == "__main__":
    main()
