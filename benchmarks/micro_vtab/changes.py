"""Searching beats neither a random feasible design nor LoRA: what was changed, and what helps.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/changes.py [--tasks emoji,climate,distance] [--seeds 0,1,2]
                                            [--only alone,fewer,...] [--dry-run]

NOAH by the recipe micro-vtab-twentieth, with one thing changed at a time: the strategy (one that
races also at a quarter of the search's passes), the supernet's policy, the space (`spaces/`), or no
supernet at all for the same passes; and the space also by micro-vtab-small-batch, which retrains
better. Each is held against a random feasible design of its own space, retrained by the same
recipe, and against LoRA alone, on the same tasks and seeds. What is done stays in
runs/micro-vtab-changes, and the same command goes on. Writes
benchmarks/results/micro_vtab_changes.json and the section of docs/claims.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noahnas.backbone import load_backbone
from noahnas.cli.screen import same_command, working
from noahnas.compare.statistics import holm
from noahnas.files import json_text, write_atomic
from noahnas.protocols.answers import Scores, differences, points
from noahnas.protocols.campaign import carry_out, preview
from noahnas.protocols.cells import Settings, protocol_of
from noahnas.protocols.curve import CHARGED
from noahnas.protocols.micro import Asked, Figure, order, tasks_of
from noahnas.recipe import Recipe, Search
from noahnas.rundir import versions
from noahnas.space import Space

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import put

RUNS = Path("runs/micro-vtab-changes")
OUT = Path(__file__).parents[1] / "results" / "micro_vtab_changes.json"
KEPT = Path(__file__).parent / "results" / "vit-nano"
SPACES = Path(__file__).parent / "spaces"
BASE, SMALL = "micro-vtab-twentieth", "micro-vtab-small-batch"
LORA = {BASE: "lora", SMALL: f"lora@{SMALL}"}  # rows of the table; BASE itself has none
SIDES = ("searched", "feasible")
UNCHANGED = {BASE: "none", SMALL: "small"}
Told = dict[str, dict[str, Any]]  # of each change: what its searches and the random designs gave


@dataclass(frozen=True)
class Change:
    """One thing that is other than in the recipe."""

    title: str
    recipe: Recipe
    space: str = "micro-vtab"
    row: str = "noah"
    base: str = BASE
    precision: str = "bf16"

    @property
    def rows(self) -> tuple[str, str]:
        """What is searched, and the random feasible design beside it."""
        return f"{self.row}@{self.recipe.name}", f"feasible@{self.base}"


def changes() -> dict[str, Change]:
    """By name; the first changes nothing."""
    base = Recipe.load(BASE)
    strategies = {"tpe": "tpe", "predictor": "predictor", "bandit": "bandit", "quarter": "bandit"}
    other = {
        name: replace(base, name=f"twentieth-{name}", search=Search(strategy, by=base.search.by))
        for name, strategy in strategies.items()
    }
    other["quarter"] = replace(other["quarter"], trials=base.trials // 4, batch=base.batch // 4)
    other["policy"] = replace(base, name="twentieth-policy", policy="mixed+feasible")
    small = Recipe.load(SMALL)
    spaces = {name: str(SPACES / f"{name}.yaml") for name in ("fewer", "other")}
    return {
        "none": Change("nothing: evolution on the space micro-vtab", base),
        "alone": Change("no supernet: the best of a few trained alone", base, row="alone"),
        "fewer": Change("space: one choice for every three blocks", base, spaces["fewer"]),
        "other": Change("space: LoRA, Convpass, SSF and BitFit", base, spaces["other"]),
        "predictor": Change("strategy: predictor", other["predictor"]),
        "tpe": Change("strategy: TPE", other["tpe"]),
        "bandit": Change("strategy: bandit, which races", other["bandit"]),
        "quarter": Change("strategy: bandit, a quarter of the search's passes", other["quarter"]),
        "policy": Change("supernet's policy: mixed+feasible", other["policy"]),
        "small": Change("nothing, by " + SMALL, small, base=SMALL, precision="fp32"),
        "small-other": Change(
            f"space: LoRA, Convpass, SSF and BitFit, by {SMALL}",
            small,
            spaces["other"],
            base=SMALL,
            precision="fp32",
        ),
    }


def asked(change: Change, tasks: Sequence[str], seeds: Sequence[int]) -> Asked:
    """The figures of a change, as `noahnas reproduce micro-vtab` would ask for them."""
    recipe = Recipe.load("micro-vtab")
    protocol = protocol_of(recipe, "micro-vtab")
    model: Any = load_backbone(protocol.backbone).model
    settings = Settings(
        recipe,
        protocol,
        (),
        protocol.seeds,
        protocol.backbone,
        len(model.blocks),
        Space.load(change.space),
        precision=change.precision,
        threads=1,
    )
    figures = [Figure(task, row, seed) for task in tasks for row in change.rows for seed in seeds]
    recipes = {r.name: r for r in (Recipe.load(change.base), change.recipe)}
    return Asked(settings, tuple(sorted(figures, key=order)), recipes)


def take_up(wish: Asked, out: Path) -> None:
    """Searches that `table.py` has done count as done here, so that nothing is done twice."""
    for figure in wish.figures:
        kept, _, seed = figure.name.rpartition("/")
        for row in (kept, kept.replace("noah@", "supernet@")):
            for name in ("run.json", "result.json"):
                done, copy = KEPT / row / seed / name, out / row / seed / name
                if (KEPT / kept / seed / name).is_file() and done.is_file() and not copy.exists():
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(done, copy)


def measured(change: Change, table: Mapping[str, Any]) -> dict[str, Any]:
    """What a table says of a change: accuracies of both rows, parameters and passes."""
    found: dict[str, Any] = {
        "title": change.title,
        "space": Path(change.space).stem,
        "base": change.base,
        "precision": change.precision,
    }
    for side, row in zip(SIDES, change.rows, strict=True):
        told = table["rows"][row]
        found[side] = {
            "accuracy": {task: each["seeds"] for task, each in told["tasks"].items() if each},
            "params": told["params"],
            "passes": {stage: told["cost"][stage]["passes"] for stage in CHARGED},
        }
    return found


def pairs(found: Mapping[str, Any]) -> int:
    """How many searches a change was measured with."""
    return sum(map(len, found[SIDES[0]]["accuracy"].values()))


def page(told: Told) -> str:
    """The section of the page: a line for each change."""
    scores: dict[str, Scores] = {
        f"{side} {name}": {
            task: {int(seed): accuracy for seed, accuracy in seeds.items()}
            for task, seeds in each[side]["accuracy"].items()
        }
        for name, each in told.items()
        for side in SIDES
    }
    scores |= {f"lora {base}": lora(row) for base, row in LORA.items()}
    titles = {name: name for name in scores}
    searched, chance = SIDES
    against = [
        differences(scores, f"{searched} {name}", [f"{chance} {name}"], titles)[0] for name in told
    ]
    ps = holm([found["p"] for found in against])
    lines = [
        "| changed | searched, % | a random feasible design, % | difference, points | higher in "
        "| p, Holm | searched, less nothing changed | searched, less LoRA alone | passes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, each), found, p in zip(told.items(), against, ps, strict=True):
        means = [mean(scores[f"{side} {name}"]) for side in SIDES]
        none, single = f"{searched} {UNCHANGED[each['base']]}", f"lora {each['base']}"
        held = {
            told["against"]: points(told["difference"])
            for told in differences(scores, f"{searched} {name}", [none, single], titles)
        }
        gained = "–" if name in UNCHANGED.values() else held.get(none, "–")
        lines.append(
            f"| {each['title']} | {means[0]:.1f} | {means[1]:.1f} | {points(found['difference'])} "
            f"| {found['won']} of {found['pairs']} | {p:.3g} | {gained} "
            f"| {held[single]} | {sum(each[searched]['passes'].values()) / 1000:,.0f}k |"
        )
    tasks = ", ".join(told["none"][searched]["accuracy"])
    return "\n".join([*lines, "", f"Tasks: {tasks}; means over tasks and seeds."])


def lora(row: str) -> Scores:
    """Accuracies of LoRA alone in the table."""
    told = json.loads((KEPT / "micro-vtab.json").read_text())["rows"][row]["tasks"]
    return {
        task: {int(seed): accuracy for seed, accuracy in each["seeds"].items()}
        for task, each in told.items()
    }


def mean(scores: Scores) -> float:
    """Of all tasks and seeds, in percent."""
    return 100 * statistics.fmean(a for seeds in scores.values() for a in seeds.values())


def main() -> None:
    """Do what is not done, and write what is."""
    known = changes()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", default="emoji,climate,distance")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default=",".join(known), help="changes, separated by commas")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    if strange := set(given.only.split(",")) - set(known):
        parser.error(f"no change is called {', '.join(strange)} (known: {', '.join(known)})")
    tasks, seeds = tasks_of(given.tasks.split(",")), [int(s) for s in given.seeds.split(",")]
    told: Told = json.loads(OUT.read_text())["changes"] if OUT.is_file() else {}
    for name in given.only.split(","):
        wish = asked(known[name], tasks, seeds)
        out = RUNS / Path(known[name].space).stem
        if not known[name].space.endswith(".yaml"):
            take_up(wish, out)
        if given.dry_run:
            print(name, preview(out, wish)["to_do"])
            continue
        with working(same_command) as report:
            found = measured(known[name], carry_out(out, wish, report))
        if name in told and pairs(found) < pairs(told[name]):
            print(f"{name}: {OUT} holds more runs of it, so it stays as it is", flush=True)
            continue
        told[name] = found
        told = {each: told[each] for each in known if each in told}
        kept = {"versions": versions(), "changes": told}
        write_atomic(OUT, (json_text(kept, indent=1) + "\n").encode())
        if "none" in told:
            print(page(told), flush=True)
            put("claims.md", "changes", page(told))


if __name__ == "__main__":
    main()
