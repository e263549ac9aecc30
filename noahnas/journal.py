"""A study's journal: a line an operation, each with its digest; Optuna reads it as its own."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock

from noahnas.errors import RunError, WriteError
from noahnas.files import SEAL, digest, own_bytes

UNREAD = ("params", "distributions")  # of a trial, written for other tools: we keep archs
BY_OTHERS = (2, 3, 9)  # operations that others may add: attributes of a study, notes on a trial


class SoleWriter(JournalFileOpenLock):
    """A lock that is always free: the run's own lock keeps other writers out.

    Optuna's locks outlive a killed process, and an interrupt that meets them raises another error.
    """

    def __init__(self) -> None:
        super().__init__("")

    def acquire(self) -> bool:
        """At once."""
        return True

    def release(self) -> None:
        """Nothing is to be done."""


class Journal(JournalFileBackend):
    """A journal file that is synced to the disk once a trial: when it is complete.

    What is written before reaches the system at once, and so outlives the process; if the machine
    dies, it is asked for again. Optuna syncs at every write, three times a trial.
    """

    def __init__(self, path: Path, lock: BaseJournalFileLock) -> None:
        super().__init__(str(path), lock)
        self._path = path
        self._lean = isinstance(lock, SoleWriter)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The operations from that number on; a sole writer's without what noahnas does not read.

        Optuna would keep a distribution for every gene of every trial.
        """
        for log in super().read_logs(log_number_from):
            yield {k: v for k, v in log.items() if k not in UNREAD} if self._lean else log

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write a line each, with its digest.

        Raises:
            WriteError: if the disk is full or broken; nothing of them is in the file then.
        """
        lines = "".join(_text(log | {SEAL: _digest_of(log)}) + "\n" for log in logs)
        self._lock.acquire()
        try:
            self._append(lines.encode(), sync=any(log.get("values") for log in logs))
        finally:
            self._lock.release()

    def _append(self, lines: bytes, *, sync: bool) -> None:
        before = _whole(self._path)
        try:
            with self._path.open("ab") as f:
                f.write(lines)
                if sync:
                    f.flush()
                    os.fsync(f.fileno())
        except OSError as e:
            with suppress(OSError):
                os.truncate(self._path, before)
            raise WriteError(e.errno, e.strerror, str(self._path)) from e


def _whole(path: Path) -> int:
    """Size of the file in bytes; half a line, left by a writer that was killed, is removed."""
    with path.open("r+b") as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(max(size - 1, 0))
        if size and f.read(1) != b"\n":
            f.seek(0)
            size = f.read().rfind(b"\n") + 1
            f.truncate(size)
        return size


def mend(path: Path) -> None:
    """Remove half a line at the end; raise RunError if another one is not as it was written."""
    if not path.exists():
        return
    content = own_bytes(path)
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        fault = _fault(line)
        if fault:
            raise RunError(
                f"{path}:{number} is damaged: {fault}; remove this line and all after it, and the "
                "trials that they held are evaluated anew when the run goes on"
            )
    if whole < len(content):
        with path.open("r+b") as f:
            f.truncate(whole)


def _fault(line: bytes) -> str:
    """What is wrong with a line of the journal; "" if nothing is."""
    try:
        log = json.loads(line)
        if log.get("op_code") in BY_OTHERS and SEAL not in log:
            return ""
        told = log.pop(SEAL, "")
    except (ValueError, AttributeError, RecursionError) as e:
        return str(e)
    return "" if told == _digest_of(log) else "its digest is not that of its contents"


def _text(log: Mapping[str, Any]) -> str:
    return json.dumps(log, separators=(",", ":"))


def _digest_of(log: Mapping[str, Any]) -> str:
    return digest(_text(log).encode())[:16]
