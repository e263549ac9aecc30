"""Real processes: begun as a user begins them and ended by a signal, or forked and let run."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PATIENCE = 300  # seconds, on a busy machine
COMMAND = Path(__file__).with_name("command.py")
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["noahnas.pipeline"])


def ran(
    *args: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    merged: bool = False,
) -> subprocess.CompletedProcess[str]:
    """`noahnas` with these arguments, in a process of its own, until it ends.

    The process is forked from one that has imported PyTorch and timm and done nothing else, as
    importing them is most of what a short command takes. Not for tests of signals, of imports or
    of what a process takes: those begin one afresh. It differs from such a one in that hashes and
    NumPy's global state are those of the process it was forked from, that the tests' own modules
    can be imported, and that no function of `atexit` is called.

    Args:
        args: of the command line.
        cwd: where; by default this process's.
        env: the environment; by default this process's.
        merged: whether stderr goes to stdout.

    Raises:
        subprocess.TimeoutExpired: if it takes longer than `PATIENCE`.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        err.touch()
        given = {
            "args": args,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "out": str(out),
            "err": "" if merged else str(err),
        }
        process = FORKED.Process(target=runpy.run_path, args=(str(COMMAND), given))
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(args, PATIENCE)
        told = (path.read_text(encoding="utf-8") for path in (out, err))
        return subprocess.CompletedProcess(args, process.exitcode, *told)


def begun(*args: str) -> subprocess.Popen[str]:
    """Python with these arguments."""
    return subprocess.Popen(
        [sys.executable, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background job ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def ended(
    ready: Callable[[], bool], sign: int, *args: str
) -> tuple[int, str, str]:  # exit code, stdout, stderr
    """Start `noahnas` with these arguments, and send it a signal as soon as `ready`."""
    process = begun("-m", "noahnas", *args)
    deadline = time.monotonic() + PATIENCE
    while not ready() and process.poll() is None:
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.005)
    process.send_signal(sign)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err
