"""Thousands of evaluations in one process: does memory stay flat, speed steady, files closed?

    python benchmarks/soak.py --evaluations 5000

Evolution, through the search loop, a study journal and `Scores`, on the embedded backbone and 32
val images; weights are untrained, as only the cost matters. The outputs of first blocks that
evaluation keeps are limited to `--kept-mb`, less than in a search, so that they have stopped to
grow when memory is first looked at. Seconds are of the processor.
Writes results/soak.json and the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import torch
from pages import put
from scipy import stats

from noahnas import Arch, Space, Supernet
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Split, Task, load_data
from noahnas.evaluate import Scores
from noahnas.files import write_atomic
from noahnas.search import search
from noahnas.strategy import make_strategy
from noahnas.study import Study

OUT = Path(__file__).parent / "results" / "soak.json"
IMAGES, BATCH, EVERY = 32, 10, 100


def rss() -> float:
    """Resident memory in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def handles() -> dict[str, int]:
    """Open files and threads."""
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
    }


def main() -> None:
    """Search, look every hundred evaluations, fit, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--evaluations", type=int, default=5000)
    parser.add_argument("--kept-mb", type=int, default=16)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    backbone, data = load_backbone("vit-digits"), load_data("digits", LoadOptions((16, 16)))
    few = Split(data.val.images[:IMAGES], data.val.labels[:IMAGES])
    task = Task(replace(data, val=few), backbone.preprocess, torch.device("cpu"))
    space = Space.load("tiny").bind(blocks=4, width=48)
    full = Arch(adapter=(8,) * 4, lora=(8,) * 4, vpt=(8,) * 4)
    scores = Scores(Supernet(backbone.model, full, len(data.classes)), task)
    looks: list[tuple[int, float, float, int]] = []
    scores._kept.most = given.kept_mb * 2**20
    count = 0

    def look(_: object) -> None:
        nonlocal count
        count += 1
        if count % EVERY == 0:
            looks.append((count, rss(), time.process_time(), scores._kept._bytes))

    with tempfile.TemporaryDirectory() as folder:
        study = Study.journal(Path(folder) / "journal", space)
        before = handles()
        search(
            make_strategy("evolution", space, 0),
            lambda asked: scores([p.arch for p in asked], [p.images for p in asked]),
            study, trials=given.evaluations, batch=BATCH, images=IMAGES, report=look,
        )  # fmt: skip
        after = handles()
    n, kb, seconds, kept = np.array(looks).T
    warm = n > given.evaluations / 5
    fit = stats.linregress(n[warm], kb[warm])
    t = float(stats.t.ppf(0.975, warm.sum() - 2))
    rate = EVERY / np.diff(seconds)
    fifth = len(rate) // 5
    found = {
        "evaluations": count, "images": IMAGES, "kept_mb": given.kept_mb, "batch": BATCH,
        "rss_kb": kb.tolist(), "kept_bytes": kept.tolist(), "processor_seconds": seconds.tolist(),
        "kb_a_trial": [fit.slope, fit.slope - t * fit.stderr, fit.slope + t * fit.stderr],
        "rate_second_fifth": float(np.median(rate[fifth : 2 * fifth])),
        "rate_last_fifth": float(np.median(rate[-fifth:])),
        "before": before, "after": after,
    }  # fmt: skip
    write_atomic(given.out, (json.dumps(found, indent=1) + "\n").encode())
    put("reliability.md", "soak", table(found))
    print(table(found))


def table(found: dict) -> str:  # type: ignore[type-arg]
    """What was found, as Markdown."""
    first, last = found["rate_second_fifth"], found["rate_last_fifth"]
    before, after = found["before"], found["after"]
    slope, low, high = found["kb_a_trial"]
    own = "met" if high <= 10 else "missed" if low > 10 else "within error of it"
    return "\n".join([
        "| what | found | limit | |", "|---|---|---|---|",
        f"| evaluations | {found['evaluations']} | 5000 | "
        f"{'met' if found['evaluations'] >= 5000 else 'missed'} |",
        f"| memory | {slope:.1f} KB a trial (95 %: {low:.1f}…{high:.1f}) | 10 KB | {own} |",
        f"| evaluations a processor second, second and last fifth | {first:.1f}, {last:.1f} | "
        f"– | {last / first:.2f} × |",
        f"| open files, threads, before and after | {before['files']}, {before['threads']}; "
        f"{after['files']}, {after['threads']} | equal | "
        f"{'met' if before == after else 'missed'} |",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
