"""At which learning rate does a supernet over a pretrained ViT-S learn at all? Told by val.

    python benchmarks/micro_vtab/supernet_rates.py BACKBONE [--tasks emoji,distance] [--rates ...]
                                                   [--recipe benchmarks/micro_vtab/vit-s.yaml]

The recipe trains a supernet of each task at each rate with seed 0, and 30 random designs are scored
on val under its weights. Runs lie in `runs/supernet-rates`; what is done is only read. Figures of
all of them, with those that were kept before:
`benchmarks/results/micro_vtab_supernet_rates.json`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from noahnas.cli.screen import same_command, working
from noahnas.files import json_text, write_atomic
from noahnas.inputs import Inputs
from noahnas.pipeline import resume, start
from noahnas.progress import Report
from noahnas.recipe import Recipe
from noahnas.space import Space

RUNS = Path("runs/supernet-rates")
RECIPE = "benchmarks/micro_vtab/vit-s.yaml"
OUT = Path("benchmarks/results/micro_vtab_supernet_rates.json")
BUDGET = 129_100  # parameters, as in the part vit-s of table.py


def trained(path: Path, inputs: Inputs, report: Report) -> dict[str, Any]:
    """The supernet's result: read if it is there, else after training."""
    if not (path / "run.json").is_file():
        return start(path, inputs, report)
    if not (path / "result.json").is_file():
        return resume(path, report)
    found: dict[str, Any] = json.loads((path / "result.json").read_text())
    return found


def main() -> None:
    """Train what is not trained, and keep what random designs score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("backbone", metavar="BACKBONE")
    parser.add_argument("--tasks", default="emoji,distance")
    parser.add_argument("--rates", default="1.2e-3,1.2e-2")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--precision", default="bf16")
    given = parser.parse_args()
    recipe = replace(Recipe.load(given.recipe), protocol=None)
    for task in given.tasks.split(","):
        for rate in map(float, given.rates.split(",")):
            inputs = Inputs(
                data=f"micro-vtab:{task}",
                backbone=given.backbone,
                recipe=replace(recipe, supernet=replace(recipe.supernet, lr=rate, lr_width=0)),
                space=Space.load("micro-vtab").with_budget(BUDGET),
                seed=0,
                precision=given.precision,
                threads=1,
                probe=False,
            )
            name = Path(given.backbone).stem
            path = RUNS / name / given.precision / recipe.name / task / f"lr-{rate:g}"
            with working(same_command) as report:
                result = trained(path, inputs, report)
            key: dict[str, Any] = {"backbone": name, "precision": given.precision}
            key |= {"recipe": recipe.name, "task": task, "rate": rate}
            told = key | {what: result[what] for what in ("spread", "cost")}
            kept = json.loads(OUT.read_text()) if OUT.is_file() else []
            kept = [each for each in kept if any(each[k] != key[k] for k in key)]
            kept = sorted([*kept, told], key=lambda each: [each[k] for k in key])
            write_atomic(OUT, (json_text(kept, indent=1) + "\n").encode())
            spread = result["spread"]
            print(f"{task} {rate:g}: {spread['mean']:.1%} ± {spread['sd']:.1%} (sd)", flush=True)


if __name__ == "__main__":
    main()
