"""A run directory has one writer from its first file on, and no kill leaves it unusable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noahnas.errors import RunError
from noahnas.files import left_over, process_name, running, sweep
from noahnas.rundir import RunDirectory, held

from .conftest import invoke

TINY = [
    *("--data", "digits", "--backbone", "vit-digits", "--trials", "2"),
    *("--supernet-epochs", "1", "--retrain-epochs", "1"),
]
BEGINNING = """
import sys, time
from pathlib import Path
from noahnas.errors import RunError
from noahnas.rundir import RunDirectory
place, about = Path(sys.argv[1]), {"inputs": {}, "digests": {}, "classes": [], "device": "cpu"}
about |= {"precision": "fp32", "threads": 1, "who": sys.argv[2]}
print("ready", flush=True)
start = float(input())
for i in range(60):
    while time.time() < start + i * 0.02:
        pass
    try:
        with RunDirectory.created(place / str(i), about):
            print(i, flush=True)
    except RunError as e:
        assert "another process" in str(e) or "not empty" in str(e), e
"""
KILLED = """
import os, pathlib, sys
from noahnas.files import write_atomic
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)
write_atomic(pathlib.Path(sys.argv[1]), b"{")
"""


@pytest.fixture
def dead() -> str:
    """The name of a process of this machine that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return f"{process_name().rpartition('-')[0]}-{process.pid}"


@pytest.fixture
def other() -> Iterator[str]:
    """The name of another process of this machine."""
    process = subprocess.Popen(["sleep", "60"])
    yield f"{process_name().rpartition('-')[0]}-{process.pid}"
    process.kill()
    process.wait()


def killed_in_its_first_write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [left_over(p) for p in path.parent.iterdir()] == [True]


def test_of_two_processes_that_begin_at_once_one_writes_and_the_other_leaves_nothing(
    tmp_path: Path,
) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", BEGINNING, str(tmp_path), who],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for who in "ab"
    ]  # fmt: skip
    for process in both:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    start = f"{time.time() + 0.1}\n"
    for process in both:
        assert process.stdin
        process.stdin.write(start)
        process.stdin.flush()
    began = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(began[0] + began[1], key=int) == [str(i) for i in range(60)]  # each once
    for who, numbers in zip("ab", began, strict=True):
        for number in numbers:
            assert json.loads((tmp_path / number / "run.json").read_text())["who"] == who
            names = sorted(p.name for p in (tmp_path / number).iterdir())
            assert names == ["run.json", "run.lock"]


def test_a_run_killed_in_its_very_first_write_is_begun_by_the_same_command(tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed_in_its_first_write(run / "run.json")
    (run / "run.lock").touch()
    code, _, error = invoke("search", "--out", str(run), *TINY)
    assert code == 0, error
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("name", ["notes.txt", ".notes.tmp", ".run.json.1.tmp", "folder", "link"])
def test_what_another_hand_put_there_is_left_alone(name: str, tmp_path: Path, dead: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if name == "folder":
        (run / f".run.json.{dead}.tmp").mkdir()
    elif name == "link":
        (run / "run.lock").symlink_to(tmp_path / "elsewhere")
    else:
        (run / name).write_text("mine")
    before = sorted(run.iterdir())
    with (
        pytest.raises(RunError, match="is not empty; choose another --out"),
        RunDirectory.created(run, {}),
    ):
        pass
    assert sorted(run.iterdir()) == before
    assert not (tmp_path / "elsewhere").exists()


def test_whoever_holds_the_lock_removes_what_kills_left_and_nothing_else(
    tmp_path: Path, dead: str, other: str
) -> None:
    gone = [f".a.json.{dead}.tmp", ".b.ckpt.elsewhere-1.tmp", f".c.{process_name()}.tmp"]
    kept = [f".d.{other}.tmp", ".mine.tmp", ".mine.1.tmp", "e.json", f"f.{dead}.tmp"]
    for name in gone + kept:
        (tmp_path / name).touch()
    with RunDirectory(tmp_path).locked():
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "run.lock"])


def test_names_of_processes_tell_machines_apart(dead: str, other: str) -> None:
    assert running(process_name())
    assert running(other)
    assert running(dead) is False
    assert running(f"elsewhere-{os.getpid()}") is None
    assert running("") is running("no-number") is None


def test_a_second_process_is_refused_or_waits_as_it_asks_for(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    script = (
        "import sys; from pathlib import Path; from noahnas.rundir import held\n"
        "with held(Path(sys.argv[1]), wait=True): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is at work in"), held(lock, wait=False):
            pass
        process.kill()
        with held(lock, wait=True):  # a dead process keeps no lock
            assert process.wait() == -signal.SIGKILL


def test_a_folder_that_is_not_there_needs_no_sweep(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
