"""Ten thousand trials: what an ask, a trial's memory, a resume and a report cost as they grow.

    python benchmarks/trials.py [--only search] [--trials 10000]

Asks: scores are those of benchmarks/strategies.py (separable), over noah-vtab; the history is of
draws of the paper prior. Before each ask one more trial is told, as a strategy may give fewer at
some points; so it is milliseconds of the processor for each architecture proposed. The rest is done
by the command line. A search of 11 000 trials is killed when 10 000 are in its journal, and resumed
until it evaluates the next; the journal is also read alone. A comparison of one search of 10 000
trials is finished, and its report made again from its records. Writes results/trials.json and the
section of docs/reliability.md, unless --trials is another number.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from pages import put

from noahnas.backbone import load_backbone
from noahnas.files import read_sealed_json, write_atomic
from noahnas.space import Space
from noahnas.strategy import Proposal, Trial, make_strategy
from noahnas.study import Study
from strategies import problem, space

OUT = Path(__file__).parent / "results" / "trials.json"
LENGTHS, BATCH, ASKS = (100, 1000, 3000, 10_000), 10, 20
SEEDS = 20
NAMES = {"random": LENGTHS, "evolution": LENGTHS, "local": LENGTHS, "tpe": (100, 1000)}
ALL, MORE = 10_000, 1000
NOAHNAS = [sys.executable, "-m", "noahnas"]
SIZES = [
    *("--backbone", "vit-digits", "--data", "digits", "--threads", "1"),
    *("--supernet-epochs", "1", "--retrain-epochs", "1"),
]
PARTS = ("asks", "search")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="Measure this anew, keep the rest.")
    parser.add_argument("--trials", type=int, default=ALL, help="In the search's journal.")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, Any] = json.loads(OUT.read_text()) if given.only else {}
    if given.only != "search":
        found |= asked()
    if given.only != "asks":
        found["search"] = searched(given.trials)
        print(found["search"])
    if given.trials != ALL:
        return
    write_atomic(OUT, (json.dumps(found, indent=1) + "\n").encode())
    put("reliability.md", "trials", table(found))
    print(table(found))


def asked() -> dict[str, Any]:
    """The milliseconds of asks, and the memory of a trial."""
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
    return {"ask_ms": ms, "kb_a_trial": memory(free, trials[:1000])}


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


def searched(trials: int) -> dict[str, Any]:
    """Seconds of a resume until it goes on, and of a report, at so many trials."""
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "compared"
        before, resumed = resuming(run, trials)
        free = Space.load("tiny").bind(load_backbone("vit-digits").model)
        began = time.monotonic()
        entries = Study.journal(run / "study.journal", free).entries()
        reading = time.monotonic() - began
        assert sum(entry.result is not None for entry in entries) >= before
        sizes = [*SIZES, "--trials", str(trials), "--supernet-seeds", "0"]
        sizes += ["--seeds", "0", "--retrain-seeds", "none"]
        begin("compare", "--strategies", "random", *sizes, "--out", str(out)).wait()
        (out / "compare.json").unlink()
        began = time.monotonic()
        if begin("compare", "--resume", str(out)).wait() or not (out / "compare.json").is_file():
            raise SystemExit("the comparison's report could not be made again")
        reporting = time.monotonic() - began
        (record,) = (out / "searches").rglob("search.json")
        told = read_sealed_json(record.read_bytes())["trials"]["digest"]
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "resumed_trials": before,
            "resume_seconds": round(resumed, 1),
            "read_seconds": round(reading, 1),
            "reported_trials": len(told),
            "report_seconds": round(reporting, 1),
        }


def resuming(run: Path, trials: int) -> tuple[int, float]:
    """Kill a search at so many trials; how many it had, and the seconds until it evaluates more."""
    journal = run / "study.journal"
    more = ("--trials", str(trials + MORE))
    process = begin("search", *SIZES, *more, "--out", str(run))
    while complete(journal) < trials and process.poll() is None:
        time.sleep(1)
    process.kill()
    process.wait()
    before, size = complete(journal), journal.stat().st_size
    if (run / "result.json").exists():
        raise SystemExit("the search ended before it could be killed; raise MORE")
    began = time.monotonic()
    process = begin("search", "--resume", str(run))
    while journal.stat().st_size <= size and process.poll() is None:
        time.sleep(0.02)
    resumed = time.monotonic() - began
    if process.poll() is not None:
        raise SystemExit("the resumed search ended before it evaluated more")
    process.kill()
    process.wait()
    return before, resumed


def begin(*args: str) -> subprocess.Popen[bytes]:
    """The command, begun."""
    return subprocess.Popen(
        [*NOAHNAS, *args], env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


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
        f"| a search killed at {run['resumed_trials']:,} trials, resumed, until it evaluates the "
        f"next | {run['resume_seconds']} s | seconds | |",
        f"| reading its journal alone | {run['read_seconds']} s | seconds | |",
        f"| the report of a comparison's search of {run['reported_trials']:,} trials, made again | "
        f"{run['report_seconds']} s | seconds | |",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
