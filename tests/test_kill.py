"""Real processes, killed in every stage; the run goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noahnas import Space
from noahnas.files import read_sealed_json
from noahnas.study import Study

SIZES = [
    "--backbone",
    "vit-digits",
    "--data",
    "digits",
    "--trials",
    "40",
    "--supernet-epochs",
    "12",
    "--retrain-epochs",
    "12",
]


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
    return [(e.proposal.arch.digest, e.result.accuracy) for e in entries if e.result], result


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, float]], dict]:
    """An undisturbed run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(noahnas("search", "--out", str(run), *SIZES), check=True, capture_output=True)
    return told(run)


def test_killed_in_training_in_search_and_in_retraining_it_ends_as_an_undisturbed_run(
    whole: tuple[list[tuple[str, float]], dict], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    resume = ("search", "--resume", str(run))
    codes = [
        kill_when((run / "supernet.ckpt").exists, "search", "--out", str(run), *SIZES),
        kill_when(lambda: trials_done(run) > 13, *resume),
        kill_when((run / "retrain.ckpt").exists, *resume),
    ]
    assert codes == [-signal.SIGKILL] * 3
    assert not (run / "result.json").exists()
    subprocess.run(noahnas(*resume), check=True, capture_output=True)
    assert told(run) == whole
    assert not list(run.glob(".*.tmp"))


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
