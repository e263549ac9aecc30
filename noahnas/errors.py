"""Every error that noahnas raises on purpose.

NoahnasError                 base: one clear sentence, shown without a traceback
├── FileError                a file that cannot be used; carries its faults
│   ├── SpaceError           a space file, or a Space, that cannot be used
│   └── RecipeError          a recipe file that cannot be used
├── ArchError                an architecture that is malformed or outside its space
│   └── ArchFileError        the same, in a file
├── BackboneError            a backbone that is unknown, unreadable or unsupported
├── DataError                a data set that cannot be read or split
├── StrategyError            a strategy that is unknown, misconfigured or misbehaves
├── RunError                 a run directory that is taken, foreign or damaged
├── StorageError             a study's storage that is unknown, unreachable or of another search
├── WriteError               a file that cannot be written: the disk is full, or read-only
├── OutOfMemoryError         memory ran out with the smallest batch
├── RanksError               a process that trains along has ended
├── WorkersError             Ray cannot be had, or its workers end one after the other
└── TrainingError            training diverged
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class NoahnasError(Exception):
    """A fault that the user can mend; its text names the fix."""


@dataclass(frozen=True, order=True)
class Fault:
    """One fault in a file.

    `line` and `column` count from 1; both are 0 where the file has no such place. `source` is told
    where it is another file than the one that was asked for.
    """

    line: int
    column: int
    message: str
    source: str = ""

    def at(self, source: str) -> str:
        """`source:line:column: message`, the form editors turn into a link."""
        source = self.source or source
        if self.line == 0:
            return f"{source}: {self.message}"
        return f"{source}:{self.line}:{self.column}: {self.message}"


class FileError(NoahnasError):
    """Faults in one file, all reported at once."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(fault.at(source) for fault in self.faults))


class SpaceError(FileError):
    """A space file, or a Space, that cannot be used."""


class ArchError(NoahnasError):
    """An architecture that is malformed or outside its space."""


class ArchFileError(ArchError, FileError):
    """An architecture file that cannot be used."""


class BackboneError(NoahnasError):
    """A backbone that is unknown, unreadable or unsupported."""


class DataError(NoahnasError):
    """A data set that cannot be read or split."""


class StrategyError(NoahnasError):
    """A strategy that is unknown, misconfigured or misbehaves."""


class RecipeError(FileError):
    """A recipe file that cannot be used."""


class RunError(NoahnasError):
    """A run directory that is taken, foreign or damaged."""


class StorageError(NoahnasError):
    """A study's storage that is unknown, cannot be reached, or holds another search."""


class WriteError(NoahnasError, OSError):
    """A file that cannot be written; made of errno, its text and the file."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


class OutOfMemoryError(NoahnasError):
    """Memory ran out, even with the smallest batch."""


class RanksError(NoahnasError):
    """Another process of a training on several devices has ended, or cannot be reached."""


class WorkersError(NoahnasError):
    """Ray cannot be started or joined, or its workers end one after the other."""


class TrainingError(NoahnasError):
    """Training diverged."""


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that `word` is no `kind`, with the nearest known name and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"unknown {kind} '{word}'{hint} (known: {', '.join(names) or 'none'})"
