"""The study: the record of a search, kept as an Optuna study in a journal file.

Any Optuna tool reads it (`optuna-dashboard RUN/study.journal`). Trials are written whole: once as
RUNNING when they are asked for, once as COMPLETE when they are evaluated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from noahnas.errors import RunError, WriteError
from noahnas.evaluate import Result
from noahnas.files import SEAL, digest
from noahnas.space import Arch, Space
from noahnas.space.distributions import distributions, indices
from noahnas.strategy import Proposal, Trial

NAME = "search"
BY_OTHERS = (2, 3, 9)  # operations that others may add: attributes of a study, notes on a trial
ASKED, MEASURED = "noahnas", "result"  # the trial attributes, one written at each end


class _SoleWriter(JournalFileOpenLock):
    """A lock that is always free: the run's own lock keeps other writers out.

    Optuna's locks outlive a killed process, and an interrupt that meets them raises another error.
    """

    def __init__(self) -> None:
        super().__init__("")

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class _Journal(JournalFileBackend):
    """A journal file that is synced to the disk once a trial: when it is complete.

    What is written before reaches the system at once, and so outlives the process; if the machine
    dies, it is asked for again. Optuna syncs at every write, three times a trial.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _SoleWriter())
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write a line each, with its digest.

        Raises:
            WriteError: if the disk is full or broken; nothing of them is in the file then.
        """
        lines = "".join(_text(log | {SEAL: _digest_of(log)}) + "\n" for log in logs)
        before = self._path.stat().st_size
        try:
            with self._path.open("ab") as f:
                f.write(lines.encode())
                if any(log.get("values") for log in logs):
                    f.flush()
                    os.fsync(f.fileno())
        except OSError as e:
            with suppress(OSError):
                os.truncate(self._path, before)
            raise WriteError(e.errno, e.strerror, str(self._path)) from e


@dataclass(frozen=True)
class Entry:
    """One trial of the study, evaluated or not."""

    number: int
    proposal: Proposal
    asked_at: int  # number of trials that the strategy knew when it proposed this one
    asked: int  # how many proposals it was asked for
    of: int  # how many it gave
    ask_seconds: float  # this proposal's share of what asking took
    result: Result | None
    seconds: float  # of the evaluation
    repeat: bool  # scored from the study itself, at no cost
    cost: float | None = None  # as a multi-objective strategy measured it

    @property
    def trial(self) -> Trial:
        """The evaluated trial, as a strategy is told it."""
        assert self.result is not None  # callers ask for evaluated entries only
        return Trial(self.proposal, self.result, self.cost)


class Study:
    """Entries in the order in which they were asked for."""

    def __init__(self, storage: BaseStorage, space: Space, name: str = NAME) -> None:
        self.space = space
        self._storage = storage
        try:
            self._id = storage.create_new_study([StudyDirection.MAXIMIZE], name)
        except DuplicatedStudyError:
            self._id = storage.get_study_id_from_name(name)
        self._distributions = distributions(space)

    @classmethod
    def journal(cls, path: Path, space: Space) -> Study:
        """A study in a journal file of which this process is the only writer.

        Half a line that a killed writer left there is removed.

        Raises:
            RunError: if the journal is damaged.
            WriteError: if it cannot be written.
        """
        try:
            _mend(path)
            return cls(JournalStorage(_Journal(path)), space)
        except OSError as e:
            raise WriteError(e.errno, e.strerror, str(path)) from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise RunError(f"{path} is damaged: {e}") from e

    def entries(self) -> list[Entry]:
        """Every trial, by number."""
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        return [_entry(t) for t in sorted(trials, key=lambda t: t.number) if ASKED in t.user_attrs]

    def start(
        self, proposal: Proposal, asked_at: int, asked: int, of: int, ask_seconds: float = 0.0
    ) -> Entry:
        """Write a proposal as RUNNING."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=indices(self.space, proposal.arch),
            distributions=self._distributions,
            user_attrs={
                ASKED: {
                    "digest": proposal.arch.digest,
                    "arch": proposal.arch.to_dict(),
                    "images": proposal.images,
                    "asked_at": asked_at,
                    "asked": asked,
                    "of": of,
                    "ask_seconds": ask_seconds,
                }
            },
        )
        trial_id = self._storage.create_new_trial(self._id, template_trial=template)
        number = self._storage.get_trial_number_from_id(trial_id)
        return Entry(number, proposal, asked_at, asked, of, ask_seconds, None, 0.0, False)

    def finish(
        self,
        entry: Entry,
        result: Result,
        seconds: float,
        *,
        repeat: bool = False,
        cost: float | None = None,
    ) -> Entry:
        """Write what an entry's evaluation measured; it is on disk when this returns."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._id, entry.number)
        measured = result.to_dict() | {"seconds": seconds, "repeat": repeat}
        measured |= {} if cost is None else {"cost": cost}
        self._storage.set_trial_user_attr(trial_id, MEASURED, measured)
        self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [result.accuracy])
        return replace(entry, result=result, seconds=seconds, repeat=repeat, cost=cost)


def _entry(trial: FrozenTrial) -> Entry:
    asked: dict[str, Any] = trial.user_attrs[ASKED]
    measured: dict[str, Any] = dict(trial.user_attrs.get(MEASURED, {}))
    seconds, repeat = measured.pop("seconds", 0.0), measured.pop("repeat", False)
    cost = measured.pop("cost", None)
    done = trial.state == TrialState.COMPLETE
    return Entry(
        trial.number,
        Proposal(Arch.from_dict(asked["arch"]), asked["images"]),
        asked["asked_at"],
        asked["asked"],
        asked["of"],
        asked["ask_seconds"],
        Result(**measured) if done else None,
        seconds,
        repeat,
        cost,
    )


def _mend(path: Path) -> None:
    """Remove half a line at the end; raise RunError if another one is not as it was written."""
    if not path.exists():
        return
    content = path.read_bytes()
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
    except (ValueError, AttributeError) as e:
        return str(e)
    return "" if told == _digest_of(log) else "its digest is not that of its contents"


def _text(log: Mapping[str, Any]) -> str:
    return json.dumps(log, separators=(",", ":"))


def _digest_of(log: Mapping[str, Any]) -> str:
    return digest(_text(log).encode())[:16]
