"""Ten thousand trials: what an ask, a trial's memory and a resume cost as the history grows.

    python benchmarks/trials.py

Scores are those of benchmarks/strategies.py (separable), over noah-vtab; archs of the history are
draws of the paper prior, told in one piece. Seconds are of the processor: other work ran on the
machine. Writes results/trials.json and prints a table.
"""

from __future__ import annotations

import json
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import optuna

from noahnas.files import write_atomic
from noahnas.strategy import Proposal, Trial, make_strategy
from noahnas.study import Study
from strategies import problem, space

OUT = Path(__file__).parent / "results" / "trials.json"
LENGTHS, BATCH, ASKS = (100, 1000, 3000, 10_000), 10, 15
NAMES = {"random": LENGTHS, "evolution": LENGTHS, "local": LENGTHS, "tpe": (100, 1000)}


def main() -> None:
    """Measure, write, print."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    what, free = problem("separable", 0), space()
    drawn = dict.fromkeys(free.sample(np.random.default_rng(2), 11_000, prior="paper"))
    proposals = [Proposal(arch) for arch in list(drawn)[: max(LENGTHS)]]
    trials = [Trial(p, what.result(p)) for p in proposals]
    found: dict = {"batch": BATCH, "other_work_on_machine": True, "ask_ms": {}}  # type: ignore
    for name, lengths in NAMES.items():
        found["ask_ms"][name] = {}
        for length in lengths:
            made = make_strategy(name, free, 0)
            made.tell(trials[:length])
            made.ask(BATCH)
            ms = []
            for _ in range(ASKS if name != "tpe" else 3):
                began = time.process_time()
                made.ask(BATCH)
                ms.append(1000 * (time.process_time() - began))
            low, mid, high = np.quantile(ms, [0.25, 0.5, 0.75]).round(2).tolist()
            found["ask_ms"][name][str(length)] = [mid, low, high]
    with tempfile.TemporaryDirectory() as folder:
        path, some = Path(folder) / "journal", trials[:1000]
        tracemalloc.start()
        study, made = Study.journal(path, free), make_strategy("evolution", free, 0)
        base = tracemalloc.get_traced_memory()[0]
        for i, trial in enumerate(some):
            study.finish(study.start(trial.proposal, i, 1, 1), trial.result, 0.0)
            made.tell([trial])
        used = tracemalloc.get_traced_memory()[0] - base
        tracemalloc.stop()
        found["kb_a_trial"] = [round(used / 1024 / len(some), 2), len(some)]
        for i, trial in enumerate(trials[1000:], start=1000):
            study.finish(study.start(trial.proposal, i, 1, 1), trial.result, 0.0)
        began = time.process_time()
        again, made = Study.journal(path, free), make_strategy("evolution", free, 0)
        made.tell([entry.trial for entry in again.entries()])
        made.ask(BATCH)
        found["resume_seconds"] = [round(time.process_time() - began, 2), len(trials)]
    write_atomic(OUT, (json.dumps(found, indent=1) + "\n").encode())
    print("| what | 100 | 1000 | 3000 | 10 000 | ratio | at most | |\n" + "|---" * 8 + "|")
    for name, row in found["ask_ms"].items():
        cells = [f"{row[k][0]} ({row[k][1]}…{row[k][2]})" if (k := str(n)) in row else "–"
                 for n in LENGTHS]  # fmt: skip
        ratio = list(row.values())[-1][0] / row["100"][0]
        told = "stated" if name == "tpe" else "met" if ratio <= 1.5 else "missed"
        limit = "–" if name == "tpe" else "1.5"
        print(f"| {name}, ms an ask of 10 | {' | '.join(cells)} | {ratio:.2f} | {limit} | {told} |")
    kb, count = found["kb_a_trial"]
    seconds, all_of_them = found["resume_seconds"]
    print(f"\nMemory: {kb} KB a trial over {count} (at most 10). "
          f"Resume of {all_of_them} trials: {seconds} s.")  # fmt: skip


if __name__ == "__main__":
    main()
