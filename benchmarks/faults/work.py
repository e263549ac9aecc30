"""The run that faults are done to, and what is compared of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from noahnas import Space
from noahnas.files import read_sealed_json
from noahnas.study import Study

SIZES = ["--backbone", "vit-digits", "--trials", "30", "--supernet-epochs", "8",
         "--retrain-epochs", "8"]  # fmt: skip
STAGES = ("data cache", "supernet training", "search", "retraining", "report")
LOOK = 0.001  # seconds between two looks at a process
Record = dict[str, Any]


def pictures(folder: Path) -> Path:
    """600 images of three classes; decoding them takes a moment."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for i in range(200):
            image = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
            image[:, label * 16 : label * 16 + 16] += 150
            Image.fromarray(image).save(folder / name / f"{i:03}.png")
    return folder


class Work:
    """A directory with the data, a cache of its own and an undisturbed run."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.environment["NOAHNAS_CACHE"] = os.environ["NOAHNAS_CACHE"] = str(place / "cache")
        self.data = place / "pictures"
        if not self.data.exists():
            pictures(self.data)
        self.whole = place / "whole"

    def undisturbed(self) -> dict[str, float]:
        """Do the run that is not disturbed; seconds of the processor that each stage took."""
        shutil.rmtree(self.place / "cache", ignore_errors=True)
        process = self.begin(*self.search(self.fresh("whole")))
        began, used = dict[str, float](), 0.0
        while process.poll() is None:
            used, stage = worked(process), stage_of(self, self.whole)
            if stage:
                began.setdefault(stage, used)
            time.sleep(LOOK)
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert list(began) == list(STAGES), began
        times = [*began.values(), used]
        return {stage: times[i + 1] - times[i] for i, stage in enumerate(STAGES)}

    def search(self, out: Path, *more: str) -> list[str]:
        """The arguments of a new search."""
        return ["search", "--out", str(out), "--data", str(self.data), *SIZES, *more]

    def begin(self, *args: str) -> subprocess.Popen[str]:
        """A process that was started."""
        return subprocess.Popen(
            [sys.executable, "-m", "noahnas", *args], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=self.environment,
            # A shell's background job ignores SIGINT, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A process that has ended."""
        process = self.begin(*args)
        out, err = process.communicate()
        return subprocess.CompletedProcess([*args], process.returncode, out, err)

    def go_on(self, run: Path) -> list[str]:
        """The arguments by which a user goes on with a run, whatever there is of it."""
        begun = (run / "run.json").exists()
        return ["search", "--resume", str(run)] if begun else self.search(run)

    def fresh(self, name: str) -> Path:
        """A place where nothing is."""
        shutil.rmtree(self.place / name, ignore_errors=True)
        return self.place / name

    def copy(self, name: str) -> Path:
        """A copy of the undisturbed run."""
        return Path(shutil.copytree(self.whole, self.fresh(name)))


def told(run: Path) -> tuple[list[tuple[str, float]], Record]:
    """The sequence of trials, and the result but for seconds and what was computed together."""
    space = Space.load("tiny").bind(blocks=4, width=48)
    entries = Study.journal(run / "study.journal", space).entries()
    result = read_sealed_json((run / "result.json").read_bytes())
    for cost in result["cost"].values():
        cost.pop("seconds", None)
        cost.pop("computed_passes", None)  # a kill in an ask parts what is computed together
    del result["val"]["computed"]  # so it does for the winner; and each worker shares its own
    return [(e.proposal.arch.digest, e.result.accuracy) for e in entries if e.result], result


def complete(run: Path) -> int:
    """Trials of a run that are done."""
    journal = run / "study.journal"
    return journal.read_bytes().count(b'"state":1') if journal.exists() else 0


def worked(process: subprocess.Popen[str]) -> float:
    """Seconds of the processor that a process has used: other work on the machine adds none."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def stage_of(work: Work, run: Path) -> str:
    """The stage that a process on a run is in, by the files there are; "" = none yet."""
    if not (run / "run.json").exists():
        return STAGES[0] if list((work.place / "cache").glob("images/.*")) else ""
    stages = run / "stages.json"
    done = stages.read_text() if stages.exists() else ""
    ends = {"retrain": "report", "search": "retraining", "supernet": "search"}
    return next((now for name, now in ends.items() if f'"{name}": {{' in done), STAGES[1])
