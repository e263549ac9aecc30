"""What keeping a trial costs on each storage: written as RUNNING, then as COMPLETE.

    python benchmarks/scale/storages.py                  # starts Debian's PostgreSQL, if root may
    python benchmarks/scale/storages.py --url postgresql://me@db/nas
    python benchmarks/scale/storages.py --rounds 2 --trials 5 --out /tmp/storages.json  # a try

No network for scores, architectures of noah-vtab. In each round each storage is measured twice: by
one process alone, and by two that write into the same study as fast as they can. So other work on
the machine meets all of them. Milliseconds by the clock, as most of it is waiting for the disk, and
of the processor. Of two it is the mean of both, since a lock may favour one: twice the time by the
trials of both; the quantiles are those of the first. Writes results/storages.json and the table of
docs/storages.md, or what --out names alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from noahnas import Arch, Space
from noahnas.evaluate import Result
from noahnas.files import json_text, write_atomic
from noahnas.rundir import versions
from noahnas.storage import masked, opened
from noahnas.strategy import Proposal
from noahnas.study import Study

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import put

OUT = Path(__file__).parents[1] / "results" / "storages.json"
POSTGRES = Path("/usr/lib/postgresql/15/bin")
LIMITS = {"journal, shared": 20.0}  # ms a trial
SPACE, STUDY = "noah-vtab", "measured"
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


@dataclass(frozen=True)
class Round:
    """What a process measured in a round."""

    each: list[float]  # ms of its trials by the clock
    processor: float  # ms of the processor, mean
    of_second: int | None = None  # trials that a second process wrote meanwhile; None = no such

    @property
    def ms(self) -> float:
        """Of a trial, mean of those who write."""
        if self.of_second is None:
            return float(np.mean(self.each))
        return 2 * sum(self.each) / (len(self.each) + self.of_second)


def measure(study: Study, archs: Sequence[Arch], second: Second | None = None) -> Round:
    """Keep a trial of each arch, and time it."""
    before = second.trials if second else 0
    each, processor = [], time.process_time()
    for i, arch in enumerate(archs):
        began = time.perf_counter()
        keep(study, arch, i)
        each.append(1000 * (time.perf_counter() - began))
    used = 1000 * (time.process_time() - processor) / len(archs)
    return Round(each, used, second.trials - before if second else None)


def keep(study: Study, arch: Arch, number: int) -> None:
    """One trial."""
    study.finish(study.start(Proposal(arch), number, 1, 1), RESULT, 0.0)


class Second:
    """Another process, which writes into a study while it is asked to."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._go, self._busy, self._over = context.Event(), context.Event(), context.Event()
        self._count = context.Value("i", 0)
        self._process = context.Process(
            target=_write, args=(url, self._go, self._busy, self._over, self._count), daemon=True
        )
        self._process.start()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """From when it has written a trial."""
        self._go.set()
        while not self._busy.wait(1):
            if not self._process.is_alive():
                raise SystemExit("the second process has ended")
        try:
            yield
        finally:
            self._go.clear()
            while self._busy.is_set() and self._process.is_alive():
                time.sleep(0.001)

    @property
    def trials(self) -> int:
        """How many it has written."""
        return int(self._count.value)

    def close(self) -> None:
        """End it."""
        self._over.set()
        self._go.set()
        self._process.join()


def _write(url: str, go: Event, busy: Event, over: Event, count: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = Space.load(SPACE)
    rng = np.random.default_rng(1)
    with opened(url) as storage:
        study = Study(storage, space, STUDY, "other", {})
        while go.wait() and not over.is_set():
            while go.is_set() and not over.is_set():
                keep(study, space.sample(rng, 1)[0], count.value)
                count.value += 1
                busy.set()
            busy.clear()


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """The figures of a storage, in milliseconds a trial."""
    each = [ms for found in rounds for ms in found.each]
    means = [found.ms for found in rounds]
    low, high = np.quantile(each, [0.05, 0.95])
    return {
        "trials": len(each), "ms": float(np.mean(means)),
        "sd_of_rounds": float(np.std(means, ddof=1)), "low5": float(low), "high95": float(high),
        "processor_ms": float(np.mean([found.processor for found in rounds])),
    }  # fmt: skip


def two(beside: dict[str, list[Round]], name: str) -> dict[str, Any] | None:
    """The figures of two who write at once; None for what only one may write."""
    if name not in beside:
        return None
    return summary(beside[name]) | {"of_second": sum(r.of_second or 0 for r in beside[name])}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    head = ["storage", "trials", "ms a trial", "± between rounds", "5–95 %", "processor ms",
            "ms, two writing at once", "± between rounds", "5–95 %", "at most"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["storage"], str(row["trials"]), *_cells(row), f"{row['processor_ms']:.1f}"]
        cells += _cells(row["two"]) if row["two"] else ["–"] * 3
        cells.append(f"{row['limit_ms']:g}" if row["limit_ms"] else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    return [f"{row['ms']:.1f}", f"{row['sd_of_rounds']:.1f}",
            f"{row['low5']:.1f}–{row['high95']:.1f}"]  # fmt: skip


def main() -> None:
    """Measure in turns, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", action="append", default=[], help="one more storage")
    parser.add_argument("--rounds", type=int, default=10, help="at least 2")
    parser.add_argument("--trials", type=int, default=50, help="of a round")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = Space.load(SPACE)
    draws = space.sample(np.random.default_rng(0), given.rounds * given.trials)
    alone: dict[str, list[Round]] = {}
    beside: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"journal, shared": f"journal:{folder}/shared", "sqlite": f"sqlite:///{folder}/s.db"}
        users = {user.pw_name for user in pwd.getpwall()}
        if (POSTGRES / "initdb").exists() and "postgres" in users:
            urls["PostgreSQL"] = stack.enter_context(postgresql())
        urls |= {masked(url): url for url in given.url}
        studies = {"journal of the run": Study.journal(folder / "own", space)}
        seconds: dict[str, Second] = {}
        for name, url in urls.items():
            studies[name] = Study(stack.enter_context(opened(url)), space, STUDY, "me", {})
            seconds[name] = Second(url)
            stack.callback(seconds[name].close)
        for second in seconds.values():  # what they load is loaded before anything is measured
            with second.at_work():
                pass
        for turn in range(given.rounds):
            archs = draws[turn * given.trials : (turn + 1) * given.trials]
            for name, study in studies.items():
                alone.setdefault(name, []).append(measure(study, archs))
            for name, second in seconds.items():
                with second.at_work():
                    beside.setdefault(name, []).append(measure(studies[name], archs, second))
    rows = [
        {"storage": name, "limit_ms": LIMITS.get(name)}
        | summary(found)
        | {"two": two(beside, name)}
        for name, found in alone.items()
    ]
    told = {"rows": rows, "rounds": given.rounds, "machine": platform.machine(),
            "versions": versions()}  # fmt: skip
    write_atomic(given.out, (json_text(told, indent=1) + "\n").encode())
    print(table(rows))
    if given.out == OUT:
        put("storages.md", "storages", table(rows))


if __name__ == "__main__":
    main()
