"""Real processes: begun as a user begins them, and ended by a signal at a chosen moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

PATIENCE = 300  # seconds, on a busy machine


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
