"""The space DSL's figures: exact counts, draws a second, `space check` of what ships and of faults.

    python benchmarks/space.py

Writes results/space.json. One thread; seconds are of the processor, imports apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from noahnas import Space
from noahnas.space import shipped

HERE = Path(__file__).parent
BROKEN = HERE.parent / "tests" / "broken_spaces"
SHOWN = ("unknown-keys-3", "beyond-the-backbone-4", "infeasible-budget-1", "anchors-1", "rules-1")
DRAWS, REPEATS = 20_000, 5
BOUND = {"demo": "vit-nano", "tiny": "vit-digits"}  # spaces for embedded backbones


def counted(name: str, params: int | None) -> dict[str, Any]:
    """Exact size and count on ViT-B/16, and what a fresh space takes for them."""
    began = time.process_time()
    space = Space.load(name)
    count = space.count(params) if params else space.count()
    seconds = time.process_time() - began
    size = space.size
    return {"space": name, "size": str(size), "params": params, "count": str(count),
            "seconds": round(seconds, 4)}  # fmt: skip


def drawn(name: str, params: int | None) -> dict[str, Any]:
    """Exactly uniform draws of feasible archs a second, of a space that is compiled."""
    space = Space.load(name)
    space = space.with_budget(params) if params else space
    space.sample(np.random.default_rng(0), 10)
    rates = []
    for seed in range(REPEATS):
        began = time.process_time()
        space.sample(np.random.default_rng(seed), DRAWS)
        rates.append(round(DRAWS / (time.process_time() - began)))
    return {"space": name, "params": params, "archs_per_second": sorted(rates), "draws": DRAWS}


def checked(*args: str) -> dict[str, Any]:
    """Exit code and output of `noahnas space check`."""
    done = subprocess.run(
        [sys.executable, "-m", "noahnas", "space", "check", *args],
        cwd=BROKEN, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {"arguments": list(args), "exit": done.returncode, "said": done.stdout + done.stderr}


def main() -> None:
    """Measure and write."""
    Space.load("noah-vtab").count()  # imports
    backbones = {name: ["--backbone", BOUND[name]] if name in BOUND else [] for name in shipped()}
    found = {
        "counts": [
            counted("noah-vtab", None),
            counted("noah-fewshot", 640_000),
            counted("noah-fewshot", None),
        ],
        "draws": [
            drawn("noah-vtab", None),
            drawn("noah-fewshot", 640_000),
            drawn("noah-fewshot", None),
        ],
        "shipped": [checked(name, *options) for name, options in backbones.items()],
        "broken": [checked(f"{name}.yaml") for name in SHOWN],
    }
    (HERE / "results" / "space.json").write_text(
        json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    )
    for row in found["counts"]:
        print(row)
    for row in found["draws"]:
        print(row)
    for check in (*found["shipped"], *found["broken"]):
        print(f"$ noahnas space check {' '.join(check['arguments'])}   # exit {check['exit']}")
        print(check["said"])


if __name__ == "__main__":
    main()
