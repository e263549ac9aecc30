"""How well the supernets of each training policy rank architectures: tables, a file and a plot.

    python benchmarks/policies/table.py [--out FOLDER] [--keep]

Reads what `train.py` wrote. The truth is the test accuracy of an architecture that was trained
alone, the mean of two seeds; a supernet's score is its val accuracy, ties broken by loss, as a
search ranks. τ is Kendall's τ-b, the mean over supernets, with a 95 % bootstrap interval over
architectures and supernets; differences are paired over architectures. With `--keep`, writes
benchmarks/results/policies.json, the tables of docs/results.md and docs/policies.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats
from train import (
    ALONE_SEEDS,
    ARCHS,
    BACKBONE,
    EPOCHS,
    OUT,
    POLICIES,
    RATES,
    SEEDS,
    SPACE,
    chosen,
)

from noahnas.backbone import load_backbone
from noahnas.files import write_atomic
from noahnas.ranking import Estimate, correlation, difference, noise_ceiling
from noahnas.space import Arch, Space

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import put

ROOT = Path(__file__).parents[2]
DEFAULT = "warm+mixed"


def main() -> None:
    """Print a table for each task, and keep them if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--keep", action="store_true", help="write the result file and the plot")
    given = parser.parse_args()
    folders = sorted(path for path in given.out.iterdir() if (path / "about.json").is_file())
    found = {}
    for folder in folders:
        if missing := lacking(folder):
            print(f"{folder.name}: left out, {missing} trainings are missing")
        else:
            found[folder.name] = table(folder)
    tables = "\n\n".join(shown(name, task) for name, task in found.items())
    print(tables)
    if given.keep and len(found) < len(folders):
        sys.exit("nothing is kept, as trainings are missing: run train.py")
    if given.keep:
        put("results.md", "policies", tables)
        text = json.dumps(found, indent=1) + "\n"
        write_atomic(ROOT / "benchmarks" / "results" / "policies.json", text.encode())
        plot(found).savefig(ROOT / "docs" / "policies.svg", metadata={"Date": None})


def lacking(folder: Path) -> int:
    """How many trainings of a task are not done yet."""
    alone = len(list(folder.glob("alone-*.json")))
    nets = len(list(folder.glob("supernet-*.json")))
    return ARCHS * len(ALONE_SEEDS) - alone + len(POLICIES) * (len(RATES) + len(SEEDS) - 1) - nets


def table(folder: Path) -> dict[str, Any]:
    """Everything that a task's folder says, by policy."""
    alone = [
        [read(folder / f"alone-{seed}-{number:02}.json") for number in range(ARCHS)]
        for seed in ALONE_SEEDS
    ]
    tests = [[one["test"]["accuracy"] for one in row] for row in alone]  # (2, 60)
    truth = np.mean(tests, axis=0)  # (60)
    rates = {word: chosen(folder, word) for word in POLICIES}
    every = {
        word: [read(folder / f"supernet-{word}-{rate:g}-{seed}.json") for seed in SEEDS]
        for word, rate in rates.items()
    }
    ranked = {word: [ranks(net) for net in nets] for word, nets in every.items()}
    rows = []
    for word, nets in every.items():
        rate, scores = rates[word], np.array(ranked[word])  # (supernets, 60)
        rows.append(
            {
                "policy": word,
                "rate": rate,
                "other rate": {
                    f"{other:g}": {
                        "val": statistics.fmean(net["val"]),
                        "tau": plain(correlation(ranks(net), truth)),
                    }
                    for other in RATES
                    for net in [read(folder / f"supernet-{word}-{other:g}-0.json")]
                },
                "val": [statistics.fmean(net["val"]) for net in nets],
                "marks": [[mark for mark in net["marks"] if mark is not None] for net in nets],
                "tau": plain(correlation(scores, truth)),
                "tau by loss": plain(correlation([[-x for x in n["loss"]] for n in nets], truth)),
                "spearman": plain(correlation(scores, truth, "spearman")),
                "better than paper": plain(difference(scores, ranked["paper"], truth)),
                "better than default": plain(difference(scores, ranked[DEFAULT], truth)),
                "val less paper's": plain(mean_difference(nets, every["paper"])),
                "best of 60": [float(truth[int(row.argmax())]) for row in scores],
                "passes": nets[0]["passes"],
                "seconds": [net["seconds"] for net in nets],
            }
        )
    about = read(folder / "about.json")
    return {
        "about": about,
        "truth": {
            "test": [[round(x, 4) for x in row] for row in tests],
            "mean": float(truth.mean()),
            "sd": float(truth.std(ddof=1)),
            "best": float(truth.max()),
            "tau between seeds": plain(correlation(tests[0], tests[1])),
            "tau that val noise allows": noise_ceiling(truth, about["images"]["val"]),
            "tau by params": plain(correlation(params(about), truth)),
        },
        "policies": rows,
    }


def params(about: dict[str, Any]) -> list[float]:
    """Prompt parameters (60), a ranking that takes no supernet."""
    space = Space.load(SPACE).bind(load_backbone(BACKBONE).model)
    return [float(space.params(Arch.from_dict(arch))) for arch in about["archs"]]


def ranks(net: dict[str, Any]) -> list[float]:
    """The place (60) of each architecture by val accuracy, ties broken by loss."""
    order = np.lexsort(([-x for x in net["loss"]], net["val"]))  # (60)
    found = np.empty(len(order))
    found[order] = np.arange(len(order))
    return [float(x) for x in found]


def mean_difference(nets: list[dict[str, Any]], others: list[dict[str, Any]]) -> Estimate:
    """Mean val accuracy of the 60 less that under other supernets of the same seeds.

    With a 95 % interval by Student's t over seeds, as architectures are the same in all.
    """
    less = [
        statistics.fmean(one["val"]) - statistics.fmean(other["val"])
        for one, other in zip(nets, others, strict=True)
    ]
    mean = statistics.fmean(less)
    half = stats.t.ppf(0.975, len(less) - 1) * statistics.stdev(less) / len(less) ** 0.5
    return Estimate(mean, mean - half, mean + half)


def shown(name: str, task: dict[str, Any]) -> str:
    """The table of a task, as Markdown."""
    truth = task["truth"]
    lines = [
        f"`{name}`: {ARCHS} architectures alone, test {100 * truth['mean']:.1f} ± "
        f"{100 * truth['sd']:.1f} (sd), best {100 * truth['best']:.1f}; τ between the two seeds "
        f"{interval(truth['tau between seeds'])}; noise of val would allow "
        f"{truth['tau that val noise allows']:.2f}; by number of parameters alone "
        f"{interval(truth['tau by params'])}.",
        "",
        "| policy | lr | subnets, val % | less `paper`'s | τ | τ − `paper` | τ − default "
        "| τ by loss | best of 60, test % | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in task["policies"]:
        val, best, seconds = (
            statistics.fmean(row[key]) for key in ("val", "best of 60", "seconds")
        )
        first, default = row["policy"] == "paper", row["policy"] == DEFAULT
        gain, low, high = (100 * x for x in row["val less paper's"])
        points = f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]"
        lines.append(
            f"| `{row['policy']}` | {row['rate']:g} | {100 * val:.1f} "
            f"| {'–' if first else points} | {interval(row['tau'])} "
            f"| {'–' if first else interval(row['better than paper'])} "
            f"| {'–' if default else interval(row['better than default'])} "
            f"| {interval(row['tau by loss'])} | {100 * best:.1f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def interval(found: list[float]) -> str:
    """`.45 [.31, .57]`."""
    value, low, high = (f"{x:.2f}".replace("0.", ".", 1) for x in found)
    return f"{value} [{low}, {high}]"


def plot(found: dict[str, Any]) -> Figure:
    """Mean val accuracy of some subnets against epochs of passes, a panel for each task."""
    figure = Figure(figsize=(4.2 * len(found), 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, task) in zip(panels, found.items(), strict=True):
        for row in task["policies"]:
            marks = 100 * np.mean(row["marks"], axis=0)  # (marks)
            epochs = np.linspace(0, EPOCHS, len(marks) + 1)[1:]  # (marks)
            axes.plot(epochs, marks, "o-", ms=3, label=row["policy"])
        axes.set(title=name, xlabel="epochs (of equal passes)", ylabel="val accuracy of subnets, %")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure


def plain(found: Estimate) -> list[float | None]:
    """Value, low and high."""
    return [found.value, found.low, found.high]


def read(path: Path) -> dict[str, Any]:
    """What a file of `train.py` holds."""
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return whole


if __name__ == "__main__":
    main()
