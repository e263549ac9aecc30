"""Ctrl-C and SIGTERM end every command alike, wherever they come: one line, exit code 130."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import begun, ended
from .protocol_data import recipe as recipe_file

SMALL = ("--backbone", "vit-digits", "--data", "digits", "--supernet-epochs", "200")


def commands(tmp_path: Path) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """A command, what is there when it trains, and the command that goes on."""
    run = tmp_path / "run"
    recipe = Path(recipe_file(tmp_path, "few-shot"))
    recipe.write_text(recipe.read_text().replace("lora: {epochs: 2,", "lora: {epochs: 500,"))
    place = ("--out", str(run))
    yield ("compare", *SMALL, *place), "supernet.ckpt", f"noahnas compare --resume {run}"
    few = ("few-shot", "--data", "digits", "--shots", "4", "--rows", "lora-2", "--seeds", "0")
    more = ("--recipe", str(recipe), "--backbone", "vit-digits", *place)
    told = f"noahnas reproduce {' '.join((*few, *more))}"
    yield ("reproduce", *few, *more), "retrain.ckpt", told


@pytest.mark.parametrize("which", range(2), ids=["compare", "reproduce"])
def test_sigterm_ends_every_long_command_with_130_and_what_goes_on(
    which: int, tmp_path: Path
) -> None:
    args, there, told = list(commands(tmp_path))[which]
    code, out, err = ended(
        lambda: bool(list(tmp_path.glob(f"run/**/{there}"))), signal.SIGTERM, *args
    )
    assert (code, out) == (130, ""), err
    assert told in err
    assert "Traceback" not in err
    assert list(tmp_path.glob(f"run/**/{there}"))
    assert not list(tmp_path.glob("run/**/.*.tmp"))


def test_an_interrupt_while_python_imports_is_told_in_one_line() -> None:
    process = begun("-X", "importtime", "-m", "noahnas", "search")
    assert process.stderr
    for line in process.stderr:
        if "typer" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted"


HIDDEN = """
import os, signal, sys, time
from noahnas.errors import BackboneError
from noahnas.progress import Progress, silent
from noahnas.stopping import command, resumable

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the caller ignores
with command(), resumable("go on with: it") as heeding:
    if sys.argv[1] == "made another error":  # as torch does in reading weights
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise BackboneError("the file cannot be read") from None
    elif sys.argv[1] == "dropped by a finaliser":
        Finalised()
        time.sleep(9)
    else:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            pass
        heeding(silent)(Progress("supernet", 1, 9, ""))
    print("it went on")
"""


@pytest.mark.parametrize("how", ["made another error", "dropped by a finaliser", "swallowed"])
def test_an_interrupt_that_a_library_hides_is_one_nevertheless(how: str) -> None:
    code = [sys.executable, "-c", HIDDEN, how]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr == "interrupted; go on with: it\n"


def test_a_signal_that_is_ignored_outside_stays_ignored() -> None:
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from noahnas.stopping import command
with command():
    os.kill(os.getpid(), signal.SIGINT)
    print("it went on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "it went on\n"


def test_interrupted_at_any_moment_it_ends_in_one_line(tmp_path: Path) -> None:
    """A few moments of a run's life; `benchmarks/faults` tries more.

    In Python's own start and end the signal kills the process, of which a shell makes 130, too.
    """
    for number in range(3):
        run = tmp_path / f"run{number}"
        process = begun("-m", "noahnas", "search", *SMALL, "--out", str(run))
        time.sleep(0.4 + 1.3 * number)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (130, -signal.SIGINT), err
        assert "Traceback" not in err
        assert (f"noahnas search --resume {run}" in err) == (run / "run.json").exists()
