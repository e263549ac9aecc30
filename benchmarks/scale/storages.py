"""What keeping a trial costs on each storage: written as RUNNING, then as COMPLETE.

    python benchmarks/scale/storages.py                  # starts Debian's PostgreSQL, if root may
    python benchmarks/scale/storages.py --url postgresql://me@db/nas

One process, no network for scores, architectures of noah-vtab. Storages take turns, so that other
work on the machine meets all of them. Milliseconds by the clock, as most of it is waiting for the
disk, and of the processor. Writes results/storages.json.
"""

from __future__ import annotations

import argparse
import platform
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from noahnas import Space
from noahnas.evaluate import Result
from noahnas.files import json_text, write_atomic
from noahnas.rundir import versions
from noahnas.storage import masked, opened
from noahnas.strategy import Proposal
from noahnas.study import Study

OUT = Path(__file__).parents[1] / "results" / "storages.json"
POSTGRES = Path("/usr/lib/postgresql/15/bin")
LIMITS = {"journal, shared": 20.0}  # ms a trial
RESULT = Result(0.5, 0.5, 1.0, 100, 200, "val")


@contextmanager
def postgresql() -> Iterator[str]:
    """A server of its own, run as user postgres; its URL."""
    place = Path(tempfile.mkdtemp(prefix="noahnas-pg-"))
    shutil.chown(place, "postgres", "postgres")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    data = str(place / "data")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        [POSTGRES / "initdb", "-D", data, "-A", "trust", "-U", "nas"],
        check=True, user="postgres", cwd=place, **quiet,
    )  # fmt: skip
    server = subprocess.Popen(
        [POSTGRES / "postgres", "-D", data, "-p", port, "-k", place, "-h", "127.0.0.1"],
        user="postgres", cwd=place, **quiet,
    )  # fmt: skip
    try:
        ready = [POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", port]
        while subprocess.run(ready, check=False, **quiet).returncode:
            if server.poll() is not None:
                raise SystemExit("PostgreSQL did not start")
            time.sleep(0.05)
        yield f"postgresql://nas@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(place)


def measure(study: Study, archs: list[Any]) -> tuple[list[float], float]:
    """Milliseconds of each trial by the clock, and of the processor on average."""
    each, processor = [], time.process_time()
    for i, arch in enumerate(archs):
        began = time.perf_counter()
        study.finish(study.start(Proposal(arch), i, 1, 1), RESULT, 0.0)
        each.append(1000 * (time.perf_counter() - began))
    return each, 1000 * (time.process_time() - processor) / len(archs)


def main() -> None:
    """Measure in turns, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", action="append", default=[], help="one more storage")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=50, help="of a round")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = Space.load("noah-vtab")
    draws = space.sample(np.random.default_rng(0), given.rounds * given.trials)
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"journal, shared": f"journal:{folder}/shared", "sqlite": f"sqlite:///{folder}/s.db"}
        users = {user.pw_name for user in pwd.getpwall()}
        if (POSTGRES / "initdb").exists() and "postgres" in users:
            urls["PostgreSQL"] = stack.enter_context(postgresql())
        urls |= {masked(url): url for url in given.url}
        studies = {"journal of the run": Study.journal(folder / "own", space)}
        for name, url in urls.items():
            studies[name] = Study(stack.enter_context(opened(url)), space, "measured", "me", {})
        for turn in range(given.rounds):
            archs = draws[turn * given.trials : (turn + 1) * given.trials]
            for name, study in studies.items():
                each, processor = measure(study, archs)
                row = found.setdefault(name, {"each": [], "rounds": [], "processor": []})
                row["each"] += each
                row["rounds"].append(float(np.mean(each)))
                row["processor"].append(processor)
    rows = []
    for name, row in found.items():
        means = np.array(row["rounds"])
        low, high = np.quantile(row["each"], [0.05, 0.95])
        rows.append({
            "storage": name, "trials": len(row["each"]), "ms": float(means.mean()),
            "sd_of_rounds": float(means.std(ddof=1)), "low5": float(low), "high95": float(high),
            "processor_ms": float(np.mean(row["processor"])), "limit_ms": LIMITS.get(name),
        })  # fmt: skip
    told = {"rows": rows, "rounds": given.rounds, "machine": platform.machine(),
            "versions": versions()}  # fmt: skip
    write_atomic(given.out, (json_text(told, indent=1) + "\n").encode())
    print("| storage | trials | ms a trial | ± between rounds | 5–95 % | processor ms | at most |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        limit = f"{r['limit_ms']:g}" if r["limit_ms"] else "–"
        print(f"| {r['storage']} | {r['trials']} | {r['ms']:.1f} | {r['sd_of_rounds']:.1f} | "
              f"{r['low5']:.1f}–{r['high95']:.1f} | {r['processor_ms']:.1f} | "
              f"{limit} |")  # fmt: skip


if __name__ == "__main__":
    main()
