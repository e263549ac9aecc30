"""A study's journal: a line an operation, each with its digest; Optuna reads it as its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from optuna.storages.journal import BaseJournalBackend

from noahnas.errors import RunError, StorageError, WriteError
from noahnas.files import SEAL, digest, own_bytes

UNREAD = ("params", "distributions")  # of a trial, written for other tools: we keep archs
BY_OTHERS = (2, 3, 9)  # operations that others may add: attributes of a study, notes on a trial
GRACE = 30.0  # seconds after which a lock is taken from whoever holds it
SETTLE = 0.5  # seconds in which others that saw the same may take it, too: the last one has it
POLLS = (0.001, 0.005)  # seconds between two tries of a lock: first, at most


class SoleWriter:
    """A lock that is always free: the run's own lock keeps other writers out."""

    def acquire(self) -> None:
        """At once."""

    def release(self) -> None:
        """Nothing is to be done."""


class SharedLock:
    """A lock of processes on machines that share a file system: a symbolic link beside the journal.

    The link is Optuna's, but leads to its holder's name. So `release` may be called whether or not
    it is held, wherever an interrupt was met: another's lock stays as it is.
    """

    def __init__(self, path: Path) -> None:
        self._link = path.with_name(f"{path.name}.lock")
        self._me = uuid4().hex

    def acquire(self) -> None:
        """Wait until it is free, or was held by the same one for `GRACE` seconds.

        Raises:
            OSError: if no link can be made there.
        """
        pause, holder, since = POLLS[0], "", time.monotonic()
        while True:
            try:
                self._link.symlink_to(self._me)
            except FileExistsError:
                found = self._holder()
            else:
                return
            if found == self._me:  # of a try whose answer was lost
                return
            if found != holder:
                holder, since = found, time.monotonic()
            elif time.monotonic() - since > GRACE:
                self._take(holder)
                time.sleep(SETTLE)
            time.sleep(pause)
            pause = min(2 * pause, POLLS[1])

    def release(self) -> None:
        """Let go, if this process holds it."""
        if self._holder() == self._me:
            self._link.unlink(missing_ok=True)

    def _take(self, holder: str) -> None:
        """Put this process in the place of a holder, with no moment without one."""
        ours = self._link.with_name(f"{self._link.name}.{self._me}")
        try:
            with suppress(FileExistsError):  # of a try whose answer was lost
                ours.symlink_to(self._me)
            if self._holder() == holder:
                ours.replace(self._link)
        finally:
            ours.unlink(missing_ok=True)

    def _holder(self) -> str:
        """Who holds it; "" if nobody does."""
        try:
            return str(self._link.readlink())
        except FileNotFoundError:
            return ""


class Journal(BaseJournalBackend):
    """A journal file that is synced to the disk once a trial: when it is complete.

    What is written before reaches the system at once, and so outlives the process; if the machine
    dies, it is asked for again. Optuna syncs at every write, three times a trial.
    """

    def __init__(self, path: Path, lock: SoleWriter | SharedLock) -> None:
        self._path, self._lock = path, lock
        self._lean = isinstance(lock, SoleWriter)
        self._read = 0, 0  # lines that were read, and their bytes
        if not path.exists():
            path.touch()

    def close(self) -> None:
        """Let go of the lock, if an interrupt kept it from being released."""
        self._lock.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The operations from that number on; a sole writer's without what noahnas does not read.

        Optuna would keep a distribution for every gene of every trial. The last line may be one
        that another process is writing; it is read next time.

        Raises:
            StorageError: if a line of a shared journal is not as it was written.
        """
        number, offset = self._read if self._read[0] == log_number_from else (0, 0)
        torn = ""
        with self._path.open("rb") as f:
            end = os.fstat(f.fileno()).st_size
            f.seek(offset)
            for line in f:
                offset += len(line)
                if offset > end or not line.endswith(b"\n"):
                    return
                if torn:
                    raise self._damaged(number, torn)
                number += 1
                try:
                    log = json.loads(line)
                except (ValueError, RecursionError) as e:
                    torn = str(e)
                    continue
                fault = "" if self._lean else _fault(line, log)  # a sole writer's: see `mend`
                if fault:
                    raise self._damaged(number, fault)
                self._read = number, offset
                if number > log_number_from:
                    yield {k: v for k, v in log.items() if k not in UNREAD} if self._lean else log

    def _damaged(self, number: int, fault: str) -> StorageError:
        return StorageError(
            f"{self._path}:{number} is damaged: {fault}; end all searches on it, remove this line "
            "and all after it, and the trials that they held are evaluated anew when runs go on"
        )

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write a line each, with its digest.

        Raises:
            WriteError: if the disk is full or broken; nothing of them is in the file then.
        """
        lines = "".join(_text(log | {SEAL: _digest_of(log)}) + "\n" for log in logs)
        try:
            self._lock.acquire()
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
    for number, line in enumerate(content[:whole].splitlines(keepends=True), start=1):
        try:
            fault = _fault(line, json.loads(line))
        except (ValueError, RecursionError) as e:
            fault = str(e)
        if fault:
            raise RunError(
                f"{path}:{number} is damaged: {fault}; remove this line and all after it, and the "
                "trials that they held are evaluated anew when the run goes on"
            )
    if whole < len(content):
        with path.open("r+b") as f:
            f.truncate(whole)


def _fault(line: bytes, log: Any) -> str:
    """What is wrong with a line of the journal, which holds `log`; "" if nothing is."""
    if not isinstance(log, dict):
        return "it is not a JSON object"
    if SEAL not in log:
        by_others = log.get("op_code") in BY_OTHERS
        return "" if by_others else "it has no digest, so noahnas did not write it"
    head, _, _ = line.rpartition(f',"{SEAL}":'.encode())
    sealed = head + f',"{SEAL}":"{digest(head + b"}")[:16]}"}}\n'.encode()
    return "" if line == sealed else "its digest is not that of its contents"


def _text(log: Mapping[str, Any]) -> str:
    return json.dumps(log, separators=(",", ":"))


def _digest_of(log: Mapping[str, Any]) -> str:
    return digest(_text(log).encode())[:16]
