"""The study: the record of a search, kept as an Optuna study, by default in a journal file.

Any Optuna tool reads it (`optuna-dashboard RUN/study.journal`). Trials are written whole: once as
RUNNING when they are asked for, once as COMPLETE when they are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from noahnas.errors import NoahnasError, RunError, WriteError
from noahnas.evaluate import Result
from noahnas.journal import Journal, SoleWriter, mend
from noahnas.rundir import reading
from noahnas.space import Arch, Space
from noahnas.space.distributions import distributions, indices
from noahnas.strategy import Proposal, Trial
from noahnas.typed import typed

NAME = "search"
CREATOR, ALIVE = "noahnas:creator", "noahnas:alive:"  # attributes of a study
ASKED, MEASURED = "noahnas", "result"  # the trial attributes, one written at each end


def creator(storage: BaseStorage, name: str) -> Mapping[str, Any]:
    """What the process that made a study noted of its search; {} if there is no such study."""
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return {}
    made = storage.get_study_user_attrs(study_id).get(CREATOR, {})
    return dict(made.get("of", {}))


@dataclass(frozen=True, slots=True)
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
    worker: str = ""  # whose it is, where several processes share the study
    failed: bool = False  # nobody evaluates it; samplers do not see it

    @property
    def trial(self) -> Trial:
        """The evaluated trial, as a strategy is told it."""
        assert self.result is not None  # callers ask for evaluated entries only
        return Trial(self.proposal, self.result, self.cost)


class Study:
    """Entries in the order in which they were asked for."""

    def __init__(
        self,
        storage: BaseStorage,
        space: Space,
        name: str = NAME,
        worker: str = "",  # this process, among those that share the study
        identity: Mapping[str, Any] | None = None,  # what scores depend on; they must agree on it
    ) -> None:
        self.space, self.name, self.worker = space, name, worker
        self.identity = dict(identity or {})
        self._storage = storage
        self._done: dict[int, Entry] = {}  # what cannot change any more, by number
        self.created = True  # by this process, just now
        try:
            self._id = storage.create_new_study([StudyDirection.MAXIMIZE], name)
        except DuplicatedStudyError:
            self.created = False
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
            mend(path)
            return cls(JournalStorage(Journal(path, SoleWriter())), space)
        except OSError as e:
            raise WriteError(e.errno, e.strerror, str(path)) from e
        except NoahnasError:
            raise
        except Exception as e:  # Optuna asserts and looks up what a journal should hold
            raise RunError(f"{path} is damaged: {e or type(e).__name__}") from e

    def entries(self, *, failed: bool = False) -> list[Entry]:
        """Every trial, by number; those that nobody evaluates only if `failed`."""
        with reading(Path(self.name)):
            return self._entries(failed)

    def _entries(self, failed: bool) -> list[Entry]:
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        ours = [t for t in sorted(trials, key=lambda t: t.number) if ASKED in t.user_attrs]
        found = [self._done.get(t.number) or _entry(t) for t in ours]
        self._done |= {e.number: e for e in found if e.result or e.failed}
        return [e for e in found if failed or not e.failed]

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted of the study as a whole."""
        return dict(self._storage.get_study_user_attrs(self._id))

    def note(self, key: str, value: Any) -> None:
        """Note something of the study as a whole."""
        self._storage.set_study_user_attr(self._id, key, value)

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
                | ({"worker": self.worker} if self.worker else {})
            },
        )
        trial_id = self._storage.create_new_trial(self._id, template_trial=template)
        number = self._storage.get_trial_number_from_id(trial_id)
        return Entry(
            number, proposal, asked_at, asked, of, ask_seconds, None, 0.0, False, worker=self.worker
        )

    def fail(self, entry: Entry) -> None:
        """Write that nobody evaluates an entry; if it is finished meanwhile, that stands."""
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._trial(entry), TrialState.FAIL)

    def copy(self, path: Path) -> None:
        """Write the whole study to a new journal file, whole or not at all.

        Raises:
            WriteError: if it cannot be written.
        """
        beside = path.with_name(f".{path.name}.tmp")
        beside.unlink(missing_ok=True)
        other = Study.journal(beside, self.space)
        for trial in self._storage.get_all_trials(self._id, deepcopy=False):
            other._storage.create_new_trial(other._id, template_trial=trial)
        beside.replace(path)

    def _trial(self, entry: Entry) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, entry.number)

    def finish(
        self,
        entry: Entry,
        result: Result,
        seconds: float,
        *,
        repeat: bool = False,
        cost: float | None = None,
    ) -> Entry:
        """Write what an entry's evaluation measured; it is on disk when this returns.

        If others took this process for dead and the entry from it, it stays as they wrote it.
        """
        trial_id = self._trial(entry)
        measured = result.to_dict() | {"seconds": seconds, "repeat": repeat}
        measured |= {} if cost is None else {"cost": cost}
        try:
            self._storage.set_trial_user_attr(trial_id, MEASURED, measured)
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [result.accuracy])
        except UpdateFinishedTrialError:
            return replace(entry, failed=True)
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
        typed(Result, measured, "result") if done else None,
        seconds,
        repeat,
        cost,
        asked.get("worker", ""),
        trial.state == TrialState.FAIL,
    )
