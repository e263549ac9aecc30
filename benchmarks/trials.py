"""Ten thousand trials: what an ask, a trial's memory, a resume and a report cost as they grow.

    python benchmarks/trials.py

Asks: scores are those of benchmarks/strategies.py (separable), over noah-vtab; the history is of
draws of the paper prior. Before each ask one more trial is told, as a strategy may give fewer at
some points; so it is milliseconds of the processor for each architecture proposed. The rest is of a
search of 10 000 trials by the command line, killed when a hundred are left. Other work ran on the
machine. Writes results/trials.json and the section of docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from pages import put

from noahnas.files import write_atomic
from noahnas.space import Space
from noahnas.strategy import Proposal, Trial, make_strategy
from noahnas.study import Study
from strategies import problem, space

OUT = Path(__file__).parent / "results" / "trials.json"
LENGTHS, BATCH, ASKS = (100, 1000, 3000, 10_000), 10, 20
SEEDS = 20
NAMES = {"random": LENGTHS, "evolution": LENGTHS, "local": LENGTHS, "tpe": (100, 1000)}
ALL, LEFT = 10_000, 100
SEARCH = [
    *(sys.executable, "-m", "noahnas", "search", "--backbone", "vit-digits", "--data", "digits"),
    *("--supernet-epochs", "1", "--retrain-epochs", "1", "--trials", str(ALL), "--threads", "1"),
]


def main() -> None:
    """Measure, write, print."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    what, free = problem("separable", 0), space()
    drawn = dict.fromkeys(free.sample(np.random.default_rng(2), 12_000, prior="paper"))
    proposals = [Proposal(arch) for arch in list(drawn)[: max(LENGTHS) + ASKS]]
    trials = [Trial(p, what.result(p)) for p in proposals]
    ms: dict[str, dict[str, list[float]]] = {
        name: {str(length): [] for length in lengths} for name, lengths in NAMES.items()
    }
    for seed in range(SEEDS):  # lengths take turns, so that other work meets all of them
        for name, lengths in NAMES.items():
            for length in lengths:
                ms[name][str(length)].append(asks(name, free, trials, length, seed))
    found: dict[str, Any] = {
        "other_work_on_machine": True,
        "ask_ms": ms,
        "kb_a_trial": memory(free, trials[:1000]),
        "search": searched(),
    }
    write_atomic(OUT, (json.dumps(found, indent=1) + "\n").encode())
    put("reliability.md", "trials", table(found))
    print(table(found))


def asks(name: str, free: Space, trials: Sequence[Trial], length: int, seed: int) -> float:
    """The milliseconds for a proposal: the median of some asks."""
    made = make_strategy(name, free, seed)
    made.tell(trials[:length])
    made.ask(BATCH)
    ms = []
    for trial in trials[length : length + ASKS]:
        made.tell([trial])
        began = time.process_time()
        given = len(made.ask(BATCH))
        ms.append(1000 * (time.process_time() - began) / given)
    return round(statistics.median(ms), 4)


def ratio(first: Sequence[float], last: Sequence[float]) -> tuple[float, float, float]:
    """The median of paired ratios, and its 95 % bootstrap interval."""
    ratios = np.array(last) / np.array(first)
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def memory(free: Space, some: Sequence[Trial]) -> float:
    """KB that Python's objects of a trial take, in the study and in evolution."""
    with tempfile.TemporaryDirectory() as folder:
        tracemalloc.start()
        study = Study.journal(Path(folder) / "journal", free)
        made = make_strategy("evolution", free, 0)
        base = tracemalloc.get_traced_memory()[0]
        for i, trial in enumerate(some):
            study.finish(study.start(trial.proposal, i, 1, 1), trial.result, 0.0)
            made.tell([trial])
        study.entries()
        used = tracemalloc.get_traced_memory()[0] - base
        tracemalloc.stop()
    return round(used / 1024 / len(some), 2)


def searched() -> dict[str, float]:
    """Seconds of a resume until it goes on, and of a report, at ten thousand trials."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        journal, env = run / "study.journal", os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*SEARCH, "--out", str(run)], env=env, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while complete(journal) < ALL - LEFT and process.poll() is None:
            time.sleep(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        size, before = journal.stat().st_size, complete(journal)
        again = [sys.executable, "-m", "noahnas", "search", "--resume", str(run)]
        began = time.monotonic()
        process = subprocess.Popen(
            again, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while journal.stat().st_size <= size and process.poll() is None:
            time.sleep(0.02)
        resumed = time.monotonic() - began
        if process.wait() or complete(journal) != ALL:
            raise SystemExit(f"{complete(journal)} of {ALL} trials")
        began = time.monotonic()
        subprocess.run(again, env=env, check=True, stdout=subprocess.DEVNULL)
        return {
            "trials": ALL,
            "killed_at": before,
            "resume_seconds": round(resumed, 1),
            "report_seconds": round(time.monotonic() - began, 1),
        }


def complete(journal: Path) -> int:
    """Trials in a journal that are done."""
    return journal.read_bytes().count(b'"values":[') if journal.exists() else 0


def table(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = ["| ms of the processor for a proposal | 100 trials | 1,000 | 3,000 | 10,000 | last : "
             "first | limit | |", "|---" * 8 + "|"]  # fmt: skip
    for name, row in found["ask_ms"].items():
        cells = [f"{statistics.median(row[k]):.2f}" if (k := str(n)) in row else "–"
                 for n in LENGTHS]  # fmt: skip
        first, *_, last = row.values()
        mid, low, high = ratio(first, last)
        told = "met" if high <= 1.5 else "within error of it" if low <= 1.5 else "missed"
        limit, told = ("–", "stated") if name == "tpe" else ("1.5", told)
        ends = f"{mid:.2f} ({low:.2f}…{high:.2f})"
        lines.append(f"| `{name}` | {' | '.join(cells)} | {ends} | {limit} | {told} |")
    kb, run = found["kb_a_trial"], found["search"]
    verdict = "met" if kb <= 10 else "missed"
    lines += [
        "",
        "| | found | limit | |", "|---" * 4 + "|",
        f"| Python's objects of a trial, in study and strategy | {kb} KB | 10 KB | {verdict} |",
        f"| a search killed at {run['killed_at']:,} trials, until it goes on | "
        f"{run['resume_seconds']} s | seconds | |",
        f"| the report of a finished search of {run['trials']:,} trials | "
        f"{run['report_seconds']} s | seconds | |",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
