"""Strategies without a network: what asking costs, and whether they beat random search.

    python benchmarks/strategies.py                  # goes on with what results/ does not hold
    python benchmarks/strategies.py --only "tpe; local" --seeds 5 --out look.json

Scores are synthetic, over noah-vtab under a budget that 18 % of the paper prior meets. Each seed
is another problem, the same for all strategies, and each strategy is compared with random search on
the same problems, by Wilcoxon's signed-rank test (one-sided), Holm-corrected. What is compared is
the true accuracy of the arch that a search returns. Seconds are of the processor. Writes
results/strategies.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy import stats

from noahnas import Arch, Space
from noahnas.evaluate import Result
from noahnas.files import json_text, write_atomic
from noahnas.search import Outcome, search
from noahnas.strategy import Proposal, Trial, make_strategy
from noahnas.study import Study

OUT = Path(__file__).parent / "results" / "strategies.json"
BUDGET, TRIALS, BATCH, IMAGES, SEEDS = "150k", 500, 10, 200, 20
SCALE = 0.08  # sd of true accuracy over random archs; that of 200 images' noise is 0.035
Options = Mapping[str, str]

# Each is compared at TRIALS evaluations; a Gaussian process, which takes seconds an ask, at fewer.
SEARCHED: dict[str, tuple[str, Options, int]] = {
    "random": ("random", {}, TRIALS),
    "qmc": ("qmc", {}, TRIALS),
    "evolution": ("evolution", {}, TRIALS),
    "evolution, ageing": ("evolution", {"ageing": "true"}, TRIALS),
    "evolution, paper": ("evolution", {"operators": "paper"}, TRIALS),
    "local": ("local", {}, TRIALS),
    "bandit": ("bandit", {}, TRIALS),
    "bandit, halving alone": ("bandit", {"bred": "0"}, TRIALS),
    "nsga2": ("nsga2", {}, TRIALS),
    "nsga2, 50": ("nsga2", {"population": "50"}, TRIALS),
    "cmaes": ("cmaes", {}, TRIALS),
    "tpe": ("tpe", {}, TRIALS),
    "predictor": ("predictor", {}, TRIALS),
    "gp": ("gp", {}, 100),
    "random, 100": ("random", {}, 100),
    "max": ("max", {}, 1),
    "middle": ("middle", {}, 1),
    "single": ("single", {}, 1),
}
LIMITS = {"random": 1.0, "evolution": 1.0, "local": 1.0, "tpe": 30.0}  # ms a trial, as asked for
JOURNAL_LIMIT = 10.0


@cache
def space() -> Space:
    """The space, bound to ViT-B/16, under a budget that binds."""
    return Space.load("noah-vtab").with_budget(BUDGET)


# --- problems --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A true accuracy for every arch, and what a val split shows of it."""

    weights: np.ndarray  # (modules, blocks): what a module's width is worth in a block
    pairs: np.ndarray  # (modules·blocks, modules·blocks): what two of them are worth together
    mean: float
    sd: float
    seed: int
    noisy: bool

    def value(self, arch: Arch) -> float:
        """Worth before it is made an accuracy."""
        x = _widths(arch)  # (modules, blocks)
        flat = x.ravel()
        return float((self.weights * x).sum() + flat @ self.pairs @ flat)

    def truth(self, arch: Arch) -> float:
        """The accuracy on images without number."""
        z = (self.value(arch) - self.mean) / self.sd
        return 0.5 + 0.45 * math.tanh(SCALE / 0.45 * z)

    def result(self, proposal: Proposal) -> Result:
        """What the first images of the val split show; the same at each look."""
        p = self.truth(proposal.arch)
        n = min(proposal.images or IMAGES, IMAGES)
        if not self.noisy:
            return Result(p, p, -math.log(p), space().params(proposal.arch), n, "val")
        rng = np.random.default_rng([self.seed, int(proposal.arch.digest, 16)])
        shown = float((rng.random(IMAGES)[:n] < p).mean())
        loss = -(shown * math.log(p) + (1 - shown) * math.log(1 - p))
        return Result(shown, shown, loss, space().params(proposal.arch), n, "val")


def _widths(arch: Arch) -> np.ndarray:
    """Widths of modules in blocks, (modules, blocks), concave, in [0, 1]."""
    dims = np.array([arch.dims(name) for name in space().parts], dtype=float)
    return np.log1p(dims) / math.log(11)


@cache
def problem(kind: str, seed: int) -> Problem:
    """A problem that the seed draws: "separable" without noise, or "pairwise" with it."""
    rng = np.random.default_rng([7, seed])
    weights = rng.normal(0.3, 1.0, (len(space().parts), space().blocks))
    pairs = np.zeros((weights.size, weights.size))
    if kind == "pairwise":
        upper = np.triu(rng.normal(0, 1.0, pairs.shape) * (rng.random(pairs.shape) < 0.2), 1)
        pairs = upper
    raw = Problem(weights, pairs, 0.0, 1.0, seed, kind == "pairwise")
    archs = space().sample(np.random.default_rng(1), 1000, prior="paper")
    values = [raw.value(arch) for arch in archs]
    return Problem(weights, pairs, float(np.mean(values)), float(np.std(values)), seed, raw.noisy)


def searched(name: str, kind: str, seed: int) -> Outcome:
    """One search through the loop, as a run does it."""
    strategy, options, trials = SEARCHED[name]
    made = make_strategy(strategy, space(), seed, options)
    what = problem(kind, seed)
    kept_nowhere = Study(optuna.storages.InMemoryStorage(), space())  # the journal is timed apart
    return search(
        made, partial(map, what.result), kept_nowhere, trials=trials, batch=BATCH, images=IMAGES
    )


# --- quality ---------------------------------------------------------------------------------


def quality(
    names: list[str],
    seeds: int,
    done: list[dict[str, Any]],
    keep: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """True accuracy of what each strategy returns, for each problem and seed; `done` is kept."""
    rows = list(done)
    there = {(row["problem"], row["strategy"]) for row in done if row["seeds"] == seeds}
    for name, kind in itertools.product(names, ("separable", "pairwise")):
        if (kind, name) in there:
            continue
        began = time.process_time()
        found = [searched(name, kind, seed) for seed in range(seeds)]
        true = [problem(kind, s).truth(outcome.best.arch) for s, outcome in enumerate(found)]
        rows = [row for row in rows if (row["problem"], row["strategy"]) != (kind, name)]
        rows.append({
            "problem": kind, "strategy": name, "seeds": seeds, "trials": SEARCHED[name][2],
            "evaluations": float(np.mean([o.evaluations for o in found])),
            "passes": float(np.mean([o.passes for o in found])),
            "true_accuracy": [round(t, 4) for t in true],
            "val_accuracy": [round(o.best.result.accuracy, 4) for o in found],
            "seconds": round((time.process_time() - began) / seeds, 2),
        })  # fmt: skip
        print(f"  {kind:10} {name:18} {np.mean(true):.3f}  {rows[-1]['seconds']} s", flush=True)
        keep(rows)
    return rows


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its mean, sd and its test against random search at the same trials."""
    for kind in ("separable", "pairwise"):
        of = {row["strategy"]: row for row in rows if row["problem"] == kind}
        p: dict[str, float] = {}
        for name, row in of.items():
            row |= {"mean": float(np.mean(row["true_accuracy"])),
                    "sd": float(np.std(row["true_accuracy"], ddof=1))}  # fmt: skip
            base = of.get("random, 100" if row["trials"] == 100 else "random")
            if base is None or base is row:
                continue
            if row["seeds"] > base["seeds"]:
                continue
            gain = np.array(row["true_accuracy"]) - np.array(base["true_accuracy"])[: row["seeds"]]
            row["gain"], row["wins"] = float(gain.mean()), int((gain > 0).sum())
            p[name] = (
                float(stats.wilcoxon(gain, alternative="greater").pvalue) if gain.any() else 1.0
            )
        worst = 0.0
        for i, name in enumerate(sorted(p, key=p.__getitem__)):  # Holm
            worst = max(worst, min(1.0, p[name] * (len(p) - i)))
            of[name]["p"] = worst
    return rows


# --- overhead --------------------------------------------------------------------------------


def overhead(name: str, batch: int) -> dict[str, Any]:
    """Milliseconds of the processor a trial for asking and telling, over a search."""
    strategy, options, trials = SEARCHED[name]
    free = Space.load("noah-vtab")
    made = make_strategy(strategy, free, 0, options)
    what, spent, told = problem("separable", 0), 0.0, 0
    make_strategy(strategy, free, 1, options).ask(1)  # imports, and counts of the space
    while told < trials:
        began = time.process_time()
        proposals = made.ask(min(batch, trials - told))
        spent += time.process_time() - began
        if not proposals:
            break
        done = [Trial(p, what.result(p), free.params(p.arch)) for p in proposals]
        began = time.process_time()
        made.tell(done)
        spent += time.process_time() - began
        told += len(done)
    ms = 1000 * spent / told
    return {"strategy": name, "batch": batch, "trials": told, "ms_per_trial": round(ms, 3),
            "limit_ms": LIMITS.get(name)}  # fmt: skip


def journal(trials: int = TRIALS) -> dict[str, Any]:
    """Milliseconds a trial for writing it as RUNNING and as COMPLETE."""
    archs = space().sample(np.random.default_rng(0), trials)
    result = Result(0.5, 0.5, 1.0, 100, IMAGES, "val")
    with tempfile.TemporaryDirectory() as folder:
        study = Study.journal(Path(folder) / "journal", space())
        processor, wall = time.process_time(), time.perf_counter()
        for i, arch in enumerate(archs):
            study.finish(study.start(Proposal(arch), i, 1, 1), result, 0.0)
        processor, wall = time.process_time() - processor, time.perf_counter() - wall
    return {"trials": trials, "ms_per_trial": round(1000 * processor / trials, 3),
            "wall_ms_per_trial": round(1000 * wall / trials, 3),
            "limit_ms": JOURNAL_LIMIT}  # fmt: skip


# --- what is printed -------------------------------------------------------------------------


def tables(found: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    lines = ["| strategy | batch | trials | ms a trial | at most |", "|---|---|---|---|---|"]
    for row in found["overhead"]:
        limit = f"{row['limit_ms']:g}" if row["limit_ms"] else "–"
        lines.append(f"| {row['strategy']} | {row['batch']} | {row['trials']} | "
                     f"{row['ms_per_trial']:.2f} | {limit} |")  # fmt: skip
    about = found["journal"]
    ms, wall = about["ms_per_trial"], about["wall_ms_per_trial"]
    lines.append(f"| the journal | – | {about['trials']} | {ms:.2f} ({wall:.1f} by the clock, "
                 f"disk and other work included) | {about['limit_ms']:g} |")  # fmt: skip
    for kind in ("separable", "pairwise"):
        lines += ["", f"{kind}:", "",
                  "| strategy | evaluations | passes | true accuracy | over random | wins | p |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for row in found["quality"]:
            if row["problem"] == kind:
                test = (f"{row['gain']:+.1%} | {row['wins']} of {row['seeds']} | {row['p']:.2g}"
                        if "gain" in row else "– | – | –")  # fmt: skip
                cost = f"{row['evaluations']:.0f} | {row['passes']:,.0f}"
                lines.append(f"| {row['strategy']} | {cost} "
                             f"| {row['mean']:.1%} ± {row['sd']:.1%} | {test} |")  # fmt: skip
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write; what the file holds already is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="names of strategies, joined by ;")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--anew", action="store_true", help="measure what is there again")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    names = [n.strip() for n in given.only.split(";")] if given.only else list(SEARCHED)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    order = {name: i for i, name in enumerate(SEARCHED)}
    found: dict[str, Any] = {"overhead": [], "quality": []}
    if given.out.exists():
        found = json.loads(given.out.read_text())
    if given.anew:
        for what in ("overhead", "quality"):
            found[what] = [row for row in found[what] if row["strategy"] not in names]
    found |= {"space": "noah-vtab", "budget": BUDGET, "images": IMAGES, "batch": BATCH}

    def write() -> None:
        write_atomic(given.out, (json_text(found, indent=1) + "\n").encode())

    def keep(rows: list[dict[str, Any]]) -> None:
        found["quality"] = compared(sorted(rows, key=lambda row: order[row["strategy"]]))
        write()

    measured = {(row["strategy"], row["batch"]) for row in found["overhead"]}
    for name, batch in itertools.product(names, (1, BATCH)):
        if (name, batch) not in measured and SEARCHED[name][2] > 1:
            row = overhead(name, batch)
            print(" ", row, flush=True)
            found["overhead"].append(row)
            found["overhead"].sort(key=lambda row: (order[row["strategy"]], row["batch"]))
            write()
    if "journal" not in found or given.anew:
        found["journal"] = journal()
    keep(quality(names, given.seeds, found["quality"], keep))
    print(tables(found))


if __name__ == "__main__":
    main()
