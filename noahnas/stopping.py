"""How Ctrl-C, SIGTERM and a full disk end a command: one line, and how to go on.

A signal raises KeyboardInterrupt between two steps of Python. Libraries below turn it into errors
of their own (PyTorch tells an interrupted read of weights as a ValueError), and where it meets a
finaliser or a callback of an import Python drops it. So it is noted that a signal came: any error
that follows is taken for the interruption, one that was dropped is raised again, and so it is by
the next progress.
"""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from noahnas.errors import (
    NoahnasError,
    OutOfMemoryError,
    RanksError,
    StorageError,
    TrainingError,
    WorkersError,
    WriteError,
)
from noahnas.printable import PrintableFormatter, printable
from noahnas.progress import Progress, Report

INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C; SIGTERM ends alike
FAULT = 2  # exit code of what the user can mend
SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.01  # seconds
# Faults that work goes on after.
MIDWAY = (
    WriteError,
    TrainingError,
    RanksError,
    WorkersError,
    StorageError,
    OutOfMemoryError,
    OSError,
)
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
NAMED = 200  # characters of a file's name

Told = Callable[[], str]


class _State:
    came = False  # a signal
    told: Told = staticmethod(lambda: "")  # how to go on


@contextmanager
def command() -> Iterator[None]:
    """A whole command: its errors end in one message, an interruption in one line and exit 130.

    A signal that the caller has made the process ignore stays ignored (`nohup`, a shell's
    background job).
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _dropped
    if logging.lastResort:
        logging.lastResort.setFormatter(PrintableFormatter())
    try:
        try:
            yield
        finally:  # what remains is to print and to leave
            for number in (*SIGNALS, signal.SIGALRM):
                signal.signal(number, signal.SIG_IGN)
    except BaseException as e:
        if _State.came:
            sys.stderr.write(f"interrupted; {_State.told()}".rstrip("; ") + "\n")
            sys.exit(INTERRUPTED)
        told = _message(e)
        if told is None:
            raise
        sys.stderr.write(printable(f"error: {told}\n"))
        sys.exit(FAULT)


@contextmanager
def resumable(told: str | Told) -> Iterator[Callable[[Report], Report]]:
    """Work that goes on after an end; `told` says how, and may be asked when it has ended.

    Yields what makes a report end the work, should a signal have been dropped.
    """
    _State.told = staticmethod(told if callable(told) else lambda: told)
    yield _heeding
    _State.told = staticmethod(lambda: "")


def _heeding(report: Report) -> Report:
    def heeded(progress: Progress) -> None:
        report(progress)
        if _State.came:
            raise KeyboardInterrupt

    return heeded


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _State.came = True
    raise KeyboardInterrupt


def _dropped(told: sys.UnraisableHookArgs) -> None:
    """What Python calls where it cannot raise: an interruption is tried once more, a little later.

    Raised here it would be dropped again.
    """
    if _State.came and isinstance(told.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(told)


def _message(error: BaseException) -> str | None:
    """What the user is told of an error; None for one that is a fault of the program."""
    if isinstance(error, NoahnasError):
        told = str(error)
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{str(error.filename)[:NAMED]}… is no name that a file can have: it is too long"
    elif isinstance(error, OSError) and error.errno in OF_THE_DISK:
        told = f"{error.filename or 'a file'} cannot be used: {error.strerror}"
    else:
        return None
    kept = isinstance(error, MIDWAY) and _State.told()
    return f"{told}\nwhat was done before is kept; {kept}" if kept else told
