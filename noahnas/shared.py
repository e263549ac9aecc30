"""One search by several processes: who evaluates what, and what becomes of a dead one's trials.

Of the trials with the same arch (on the same images) the one with the lowest number is evaluated,
by the process that wrote it; the others take over its result. Whether a trial is such a one is
decided after it is written, so that processes that write at the same time decide alike. The same
order keeps the budget: what comes after the trials that fill it is given up unevaluated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from noahnas.errors import StorageError
from noahnas.files import digest
from noahnas.progress import Progress, Report
from noahnas.search import FUTILE_ASKS, NEARLY, Evaluate, Loop, Outcome, key_of, outcome_of
from noahnas.strategy import Strategy
from noahnas.study import ALIVE, CREATOR, Entry, Study

PATIENCE = 60.0  # seconds without a sign of life, after which a process is taken for dead
SIGNS = 6  # of life within the patience
POLLS = (0.02, 1.0)  # seconds between two looks at the study: first, at most
CLAIM = 5.0  # seconds in which the process that made a study has to say so

Key = tuple[str, int | None]


def join(study: Study, seed: int) -> int:
    """The seed of this process's strategy: `seed` if it made the study, else one of its own.

    Args:
        study: whose `worker` is this process.
        seed: of the run.

    Raises:
        StorageError: if the study is one of another search.
    """
    me = {"worker": study.worker, "of": study.identity}
    if study.created:
        study.note(CREATOR, me)
    patient_until = time.monotonic() + CLAIM
    while not (made := study.notes.get(CREATOR)):
        if time.monotonic() > patient_until:  # it was killed before it could say so
            study.note(CREATOR, me)
        time.sleep(POLLS[0])
    agree(study.name, made["of"], study.identity)
    if made["worker"] == study.worker:
        return seed
    return int(digest(f"{seed} {study.worker}".encode())[:8], 16)


def agree(name: str, made: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """See that a study is of our search, as far as we know it.

    Raises:
        StorageError: with all that differs.
    """
    differ = [
        f"its {what} is {made.get(what)}, not {value}"
        for what, value in ours.items()
        if made.get(what) != value
    ]
    if differ:
        raise StorageError(f"the study '{name}' is of another search: {'; '.join(differ)}")


def search_shared(
    strategy: Strategy,
    evaluate: Evaluate,
    study: Study,
    *,
    trials: int,
    batch: int,
    images: int | None = None,
    report: Report = lambda _: None,
    patience: float = PATIENCE,
) -> Outcome:
    """`search`, on a study that other processes may search at the same time.

    The budget is of the study as a whole. Alone, it does the same trials as `search`.

    Args:
        strategy: a new one; each process has its own, with a seed of its own (`join`).
        evaluate: as of `search`.
        study: whose `worker` is this process.
        trials: distinct architectures to evaluate, those of all processes included.
        batch: architectures asked for at a time.
        images: as of `search`.
        report: called after each trial, and while this process waits for others.
        patience: seconds without a sign of life, after which another process's trials are given
            up; all who share a study should have the same.

    Raises:
        StrategyError: if the strategy proposes what is infeasible, or nothing at all.
        StorageError: if the connection is lost for good.
    """
    loop = Loop(strategy, evaluate, study, trials, images, report)
    share = _Share(study, loop, patience)
    with _signs_of_life(study, patience / SIGNS):
        pending = share.resumed()
        exhausted, futile = False, 0
        while futile < FUTILE_ASKS:
            if not pending or len(pending) < pending[0].of:
                entries = share.read()
                if not pending:
                    share.tell(entries)
                left = loop.left_beside(share.reserved(entries))
                if not pending and not left:
                    if not loop.left:
                        break
                    share.wait(entries)
                    continue
                size = pending[0].asked if pending else min(batch, left)
                began = time.perf_counter()
                proposals = [loop.checked(proposal) for proposal in strategy.ask(size)]
                asking = time.perf_counter() - began
                if not proposals and share.others(entries):
                    share.wait(entries)
                    continue
                if not proposals and not pending:
                    break
                of, at = len(proposals), len(strategy.history)
                rest = proposals[len(pending) :]
                pending += [study.start(p, at, size, of, asking / of) for p in rest]
            before = len(loop.known)
            share.settle()
            futile = 0 if len(loop.known) > before else futile + 1
            pending = []
        exhausted = loop.left > 0
        share.read()
        if loop.known and not loop.whole:
            best = max(loop.known, key=lambda key: loop.known[key].rank)
            found = next(e.proposal for e in study.entries() if key_of(e.proposal) == best)
            whole = replace(found, images=None)
            study.start(whole, len(strategy.history), 1, 1)
            share.settle(last=True)
        return outcome_of(study, strategy, exhausted)


class _Share:
    """This process's part in a study."""

    def __init__(self, study: Study, loop: Loop, patience: float) -> None:
        self.study, self.loop, self.patience = study, loop, patience
        self.told: set[int] = set()  # numbers of the trials that the strategy knows
        self.signs: dict[str, tuple[Any, float]] = {}  # of each process: its last, seen when

    def read(self) -> list[Entry]:
        """The study as it stands; what is evaluated is charged."""
        entries = self.study.entries()
        for entry in entries:
            self.loop.note(entry)
        return entries

    def tell(self, entries: Sequence[Entry]) -> None:
        """Tell the strategy what it has not been told, by number."""
        new = [e for e in entries if e.result and e.number not in self.told]
        self.loop.strategy.tell([e.trial for e in new])
        self.told |= {e.number for e in new}

    def resumed(self) -> list[Entry]:
        """The batch that this process was at when it ended; the strategy knows what it knew then.

        [] if there is none, or it was done.
        """
        entries = self.study.entries(failed=True)
        own = [e for e in entries if e.worker == self.study.worker]
        batch = [e for e in own if e.asked_at == own[-1].asked_at]
        open_ = [e for e in own if not e.result and not e.failed]
        if not batch or (not open_ and len(batch) >= batch[0].of):
            return []
        earlier = [e for e in self.read() if e.result and e not in batch]
        self.tell(earlier[: batch[0].asked_at])
        return batch

    def others(self, entries: Sequence[Entry]) -> list[Entry]:
        """What other processes are at."""
        return [e for e in entries if not e.result and e.worker != self.study.worker]

    def reserved(self, entries: Sequence[Entry]) -> float:
        """Trials that are asked for and not evaluated yet."""
        keys = {key_of(e.proposal): e for e in entries if not e.result}
        over = self._over(entries)
        return sum(
            self.loop.price(e.proposal)
            for key, e in keys.items()
            if key not in self.loop.known and key not in over
        )

    def settle(self, *, last: bool = False) -> None:
        """See that all that is this process's has a result, or is given up.

        `last`: whatever the budget.
        """
        while True:
            entries = self.read()
            mine = [e for e in entries if e.worker == self.study.worker and not e.result]
            over = set() if last else self._over(entries)
            for entry in mine:
                if key_of(entry.proposal) in over:
                    self.study.fail(entry)
            mine = [e for e in mine if key_of(e.proposal) not in over]
            owners: dict[Key, int] = {}
            for entry in entries:
                owners.setdefault(key_of(entry.proposal), entry.number)
            ready = [
                e
                for e in mine
                if (key := key_of(e.proposal)) in self.loop.known or owners[key] == e.number
            ]
            if ready:
                self.loop.finished(ready)
            elif mine:
                self.wait(entries)
            else:
                return

    def wait(self, seen: Sequence[Entry]) -> None:
        """Until the study is no more as it was seen, if only as a dead process's trials failed."""
        pause = POLLS[0]
        while True:
            entries = self.read()
            if _states(entries) != _states(seen) or self._bury(entries):
                return
            done, trials = self.loop.trials - self.loop.left, self.loop.trials
            waiting = f"waiting for {len(self.others(entries))} trials of other processes"
            self.loop.report(Progress("search", max(done, 0), trials, waiting))
            time.sleep(pause)
            pause = min(pause * 1.5, POLLS[1])

    def _bury(self, entries: Sequence[Entry]) -> bool:
        """Give up the trials of processes that are taken for dead; whether there were any."""
        now, notes = time.monotonic(), self.study.notes
        dead = set()
        for worker in {e.worker for e in self.others(entries)}:
            sign = notes.get(ALIVE + worker)
            if worker not in self.signs or self.signs[worker][0] != sign:
                self.signs[worker] = (sign, now)
            if now - self.signs[worker][1] > self.patience:
                dead.add(worker)
        given_up = [e for e in self.others(entries) if e.worker in dead]
        for entry in given_up:
            self.study.fail(entry)
        return bool(given_up)

    def _over(self, entries: Sequence[Entry]) -> set[Key]:
        """What comes after the trials that fill the budget."""
        spent, seen, over = 0.0, set[Key](), set[Key]()
        for entry in entries:
            key = key_of(entry.proposal)
            if key in seen:
                continue
            seen.add(key)
            if spent > self.loop.trials - NEARLY:
                over.add(key)
            else:
                spent += self.loop.price(entry.proposal)
        return over


def _states(entries: Sequence[Entry]) -> list[tuple[int, bool]]:
    return [(e.number, e.result is not None) for e in entries]


@contextmanager
def _signs_of_life(study: Study, every: float) -> Iterator[None]:
    """Note in the study, again and again, that this process lives."""
    ended = threading.Event()

    def beat() -> None:
        while True:
            with suppress(Exception):  # the work itself meets what is wrong, and tells of it
                study.note(ALIVE + study.worker, time.time())
            if ended.wait(every):
                return

    study.note(ALIVE + study.worker, time.time())
    thread: threading.Thread = threading.Thread(target=beat, daemon=True, name="signs of life")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(every)
