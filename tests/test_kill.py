"""Real processes, killed in every stage; the run goes on as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from noahnas import Space
from noahnas.files import read_sealed_json
from noahnas.study import Study

from .conftest import draw_images

SIZES = [
    *("--backbone", "vit-digits", "--data", "digits", "--trials", "40"),
    *("--supernet-epochs", "12", "--retrain-epochs", "12"),
]
BYTES = 3 * 16 * 16  # of a decoded image


def noahnas(*args: str) -> list[str]:
    return [sys.executable, "-m", "noahnas", *args]


def kill_when(ready: Callable[[], bool], *args: str, sign: int = signal.SIGKILL) -> int:
    """Start the command, send it a signal as soon as `ready`; returns its exit code."""
    process = subprocess.Popen(noahnas(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not ready() and process.poll() is None:
        assert time.monotonic() < deadline, "the stage to be killed never came"
        time.sleep(0.002)
    os.kill(process.pid, sign)
    return process.wait()


def decoded(cache: Path, images: int) -> Callable[[], bool]:
    """Tells whether so many images of a set that is being decoded are on the disk."""

    def ready() -> bool:
        try:
            return any(p.stat().st_size >= images * BYTES for p in cache.glob("images/.*/*.u8"))
        except FileNotFoundError:  # the set was put in place meanwhile
            return False

    return ready


def trained(checkpoint: Path, epochs: int) -> Callable[[], bool]:
    """Tells whether so many epochs of a training were seen to end."""
    seen = set[int]()

    def ready() -> bool:
        with suppress(FileNotFoundError):
            seen.add(checkpoint.stat().st_mtime_ns)
        return len(seen) >= epochs

    return ready


def reported(run: Path, rng: random.Random) -> Callable[[], bool]:
    """Tells whether a moment in what follows retraining has come."""
    stages, moment = run / "stages.json", rng.uniform(0, 0.02)
    begun: list[float] = []

    def ready() -> bool:
        if not begun and stages.exists() and '"retrain"' in stages.read_text():
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() >= begun[0] + moment

    return ready


def trials_done(run: Path) -> int:
    journal = run / "study.journal"
    return journal.read_bytes().count(b'"state":1') if journal.exists() else 0


def told(run: Path) -> tuple[list[tuple[str, float]], dict[str, Any]]:
    """The sequence of (digest, score), and the result without its seconds and computed passes."""
    space = Space.load("tiny").bind(blocks=4, width=48)
    entries = Study.journal(run / "study.journal", space).entries()
    result = read_sealed_json((run / "result.json").read_bytes())
    for cost in result["cost"].values():
        del cost["seconds"]
        cost.pop("computed_passes", None)  # a kill in an ask parts what would be computed together
    result["val"].pop("computed")  # the same, of the winner
    return [(e.proposal.arch.digest, e.result.accuracy) for e in entries if e.result], result


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images in a folder, which are decoded once."""
    root = tmp_path_factory.mktemp("data")
    draw_images(root, ["ant", "bee", "cat"], 100)
    return root


def test_killed_in_each_stage_a_run_ends_as_an_undisturbed_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole, cache = tmp_path / "run", tmp_path / "whole", tmp_path / "cache"
    search = ("search", *SIZES, "--data", str(pictures), "--out")
    resume = ("search", "--resume", str(run))
    monkeypatch.setenv("NOAHNAS_CACHE", str(tmp_path / "other"))
    subprocess.run(noahnas(*search, str(whole)), check=True, capture_output=True)
    monkeypatch.setenv("NOAHNAS_CACHE", str(cache))
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    codes = [kill_when(decoded(cache, rng.randrange(1, 250)), *search, str(run))]
    assert not (run / "run.json").exists()
    trials = rng.randrange(1, 20)  # of the first ask: it is killed at the second one
    for ready, args in [
        (trained(run / "supernet.ckpt", rng.randrange(1, 9)), (*search, str(run))),
        (lambda: trials_done(run) >= trials, resume),
        (trained(run / "retrain.ckpt", rng.randrange(1, 9)), resume),
        (reported(run, rng), resume),
    ]:
        codes.append(kill_when(ready, *args))
    assert codes == [-signal.SIGKILL] * 5, f"seed {seed}"
    assert not (run / "result.json").exists(), f"seed {seed}"
    subprocess.run(noahnas(*resume), check=True, capture_output=True)
    assert told(run) == told(whole), f"seed {seed}"
    assert len(told(run)[0]) == 40  # none lost, none doubled
    assert not [*run.glob(".*.tmp"), *cache.glob("images/.*")]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_exits_with_130_and_names_the_command_that_goes_on(
    sign: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = noahnas("search", "--out", str(run), *SIZES)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background job ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while trials_done(run) < 5:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"noahnas search --resume {run}" in err
    assert "Traceback" not in out + err


def test_a_second_process_on_a_run_is_refused_and_a_dead_one_keeps_no_lock(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = noahnas("search", "--out", str(run), *SIZES)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (run / "supernet.ckpt").exists():
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    try:
        second = subprocess.run(
            noahnas("search", "--resume", str(run)), capture_output=True, text=True, check=False
        )
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 2
    assert "another process is at work" in second.stderr
    resumed = noahnas("search", "--resume", str(run))
    assert subprocess.run(resumed, capture_output=True, check=False).returncode == 0
