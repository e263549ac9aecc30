"""One plain tune of every task of micro-VTAB: LoRA of rank 4 in all blocks, recipes/short.yaml.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/tune.py [--out benchmarks/results/micro_vtab_tune.json]

Says how much of the room above the linear probe an ordinary tune takes; nothing was searched, one
seed. Trained on train and val, tested once, at the last epoch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from noahnas.data.micro_vtab import TASKS

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_tune.json"
RECIPE = Path(__file__).parents[1] / "recipes" / "short.yaml"
KEPT = ("backbone", "recipe", "seed", "params", "test", "cost")
ARCH = "lora: [4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]\n"


def main() -> None:
    """Tune the ten, print a line each and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        arch = Path(folder) / "lora4.yaml"
        arch.write_text(ARCH, encoding="utf-8")
        for name in TASKS:
            command = [
                *(sys.executable, "-m", "noahnas", "retrain", "--arch", str(arch)),
                *("--data", f"micro-vtab:{name}", "--backbone", "vit-nano", "--threads", "1"),
                *("--recipe", str(RECIPE)),
                *("--out", str(Path(folder) / name), "--json"),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            rows.append({"task": name, **{key: found[key] for key in KEPT}})
            print(name, found["test"], flush=True)
    out.write_text(json.dumps({"arch": ARCH, "tasks": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
