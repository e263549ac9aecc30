"""The run directory: where a run's inputs, state and results stand; one writer at a time."""

from __future__ import annotations

import fcntl
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from noahnas.errors import NoahnasError, RunError
from noahnas.files import (
    left_over,
    own_bytes,
    read_sealed_json,
    sealed_json,
    sweep,
    write_atomic,
)
from noahnas.typed import typed

RECORDED = ("noahnas", "torch", "torchvision", "timm", "optuna", "numpy", "pillow")
OPTIONAL = ("nni", "pytorch-lightning")
KINDS: dict[str, Any] = {  # what run.json holds beside its notes
    "inputs": dict[str, Any],
    "digests": dict[str, str],
    "classes": list[str],
    "device": str,
    "precision": str,
    "threads": int,
}
LOCK = "run.lock"
UNFOLLOWED = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC  # no link is followed


class RunDirectory:
    """A directory that holds one run: `run.json` first, `result.json` last.

    Every file is written beside its place and renamed, so none is ever half there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def created(cls, path: Path, inputs: Mapping[str, Any]) -> Iterator[RunDirectory]:
        """Make a new directory and write its inputs, being the only process at work there.

        What a kill before the first file has left of an earlier beginning is no hindrance.

        Raises:
            RunError: if it holds anything, cannot be made, or another process begins there.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            cls._check_new(path)
        except OSError as e:
            raise RunError(f"{path} cannot be used: {e.strerror or e}") from e
        run = cls(path)
        with run.locked():
            cls._check_new(path)  # now that no other process can begin there
            run.write_json("run.json", dict(inputs) | {"versions": versions()})
            yield run

    @classmethod
    def _check_new(cls, path: Path) -> None:
        """Raise RunError if a directory holds more than a beginning that was killed leaves."""
        if all(_of_a_beginning(part) for part in path.iterdir()):
            return
        hint = "choose another --out"
        if (path / "run.json").is_file():
            compared = cls.open(path).about.get("command") == "compare"
            command = "compare" if compared else "search"
            hint += f", or go on with it: noahnas {command} --resume {path}"
        raise RunError(f"{path} exists and is not empty; {hint}")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run.

        Raises:
            RunError: if there is none.
        """
        if not path.is_dir():
            raise RunError(f"{path} is no run: there is no such directory")
        if not (path / "run.json").is_file():
            raise RunError(f"{path} is no run: it has no run.json")
        _refuse_links(path)
        return cls(path)

    @property
    def about(self) -> dict[str, Any]:
        """What `run.json` holds: inputs, digests, versions and more.

        Raises:
            RunError: if it is damaged.
        """
        about = self.read_json("run.json", *KINDS)
        with reading(self.path / "run.json"):
            return about | {key: typed(kind, about[key], key) for key, kind in KINDS.items()}

    def read_json(self, name: str, *keys: str) -> dict[str, Any]:
        """A JSON file of the run, which must hold `keys`.

        Raises:
            RunError: if it is absent or damaged.
        """
        path = self.path / name
        try:
            value = read_sealed_json(own_bytes(path))
        except OSError as e:
            raise RunError(f"{path} cannot be read: {e.strerror or e}") from e
        except ValueError as e:
            raise RunError(f"{path} is damaged: {e}; {_mended(name)}") from e
        missing = [key for key in keys if key not in value]
        if missing:
            raise RunError(f"{path} is damaged: it lacks {', '.join(missing)}")
        return value

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file with its digest, whole or not at all.

        Raises:
            WriteError: if it cannot be written.
        """
        write_atomic(self.path / name, sealed_json(value))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes here; a process that dies lets go by itself.

        What kills left half-written is removed.

        Raises:
            RunError: if another process is at work in this run, or nothing can be written in it.
        """
        with held(self.path / LOCK, wait=False):
            sweep(self.path)
            yield


def _of_a_beginning(path: Path) -> bool:
    """Whether a file is what a process leaves that is killed before it has written run.json."""
    regular = path.is_file() and not path.is_symlink()
    return regular and (path.name == LOCK or left_over(path))


@contextmanager
def held(lock: Path, *, wait: bool) -> Iterator[None]:
    """Be the only process that holds a file, which is made; one that dies lets go by itself.

    Args:
        lock: the file; it stays, and is empty.
        wait: until another process lets go; else that is an error.

    Raises:
        RunError: if another process holds it, or it cannot be made.
    """
    try:
        file = os.fdopen(os.open(lock, UNFOLLOWED, 0o666), "w")
    except OSError as e:
        raise RunError(f"{lock.parent} cannot be written to: {e.strerror or e}") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            told = "wait until it has ended, or end it"
            raise RunError(f"another process is at work in {lock.parent}; {told}") from None
        yield


def _refuse_links(folder: Path) -> None:
    """Raise RunError if anything in a run leads out of it, or is neither file nor directory."""
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            try:
                mode = (Path(root) / name).lstat().st_mode
            except FileNotFoundError:
                continue  # another process's, and gone
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                what = "a link" if stat.S_ISLNK(mode) else "no regular file"
                told = f"{Path(root) / name} is {what}; a run holds files alone"
                raise RunError(f"{told}: put the file itself there")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Work with values of a run's file, which may be of another kind than was written.

    A digest tells of damage, but whoever makes a file can make its digest, too.

    Raises:
        RunError: in place of the errors that values of another kind cause.
    """
    try:
        yield
    except NoahnasError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
        told = f"lacks {e}" if isinstance(e, KeyError) else str(e) or type(e).__name__
        raise RunError(f"{path} is damaged: {told}; {_mended(path.name)}") from e


def _mended(name: str) -> str:
    """What to do about a damaged file."""
    if name == "run.json":
        return "bring back a copy of it, or start a new run"
    return "remove it, and what it tells of is done anew when the run goes on"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()} | {name: version(name) for name in RECORDED}
    for name in OPTIONAL:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
