"""The search loop: budget, de-duplication, persistence and progress, for any strategy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from noahnas.errors import StrategyError
from noahnas.evaluate import Result
from noahnas.front import hypervolume, nondominated
from noahnas.progress import Progress, Report
from noahnas.strategy import Multiobjective, Proposal, Strategy, Trial
from noahnas.study import Entry, Study

Evaluate = Callable[[Sequence[Proposal]], Iterable[Result]]
FUTILE_ASKS = 100  # in a row without a new arch, after which a search ends
NEARLY = 1e-9  # shares of trials are summed in floating point


@dataclass(frozen=True)
class Front:
    """The trials that no other one beats in both accuracy and cost."""

    axis: str  # what the cost is
    reference: float  # the cost to which the hypervolume reaches
    hypervolume: float  # mean over costs of 0…reference of the best accuracy to be had for them
    trials: tuple[Trial, ...]  # by rising cost, and so by rising accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        told = [
            {"arch": t.arch.to_dict(), "digest": t.arch.digest, "cost": t.cost}
            | {key: getattr(t.result, key) for key in ("accuracy", "loss", "params")}
            for t in self.trials
        ]
        about = {"axis": self.axis, "reference": self.reference, "hypervolume": self.hypervolume}
        return about | {"trials": told}


@dataclass(frozen=True)
class Outcome:
    """What a search found."""

    best: Trial  # the most accurate of those scored on all images
    evaluations: int  # distinct architectures evaluated; on other numbers of images, again
    passes: int  # images through the backbone, forward equivalents
    computed: float  # passes that were; blocks that architectures have in common count once
    seconds: float  # of asking and evaluating
    exhausted: bool  # the strategy had no more to propose before the budget of trials was spent
    front: Front | None = None  # of a multi-objective strategy


def search(
    strategy: Strategy,
    evaluate: Evaluate,
    study: Study,
    *,
    trials: int,
    batch: int,
    images: int | None = None,
    report: Report = lambda _: None,
) -> Outcome:
    """Ask, evaluate, tell, until `trials` distinct architectures are evaluated.

    Goes on where `study` stands: the strategy, which must be new, is told its history; an ask that
    was cut short is asked again, which gives the same proposals, and what was not evaluated is. A
    proposal seen before is scored from the study and costs nothing. If at the end nothing is scored
    on all images, the best of the rest is.

    Args:
        strategy: a new one.
        evaluate: scores proposals on the validation split, all of an ask at once; a result is
            written as soon as it is yielded.
        study: where every trial is written, before the strategy is told.
        trials: distinct architectures to evaluate, those of the study included.
        batch: architectures asked for at a time.
        images: how many the validation split has: a trial on fewer is charged its share of one. If
            None, every trial is charged as one.
        report: called after each trial.

    Raises:
        StrategyError: if the strategy proposes what is infeasible, or nothing at all.
    """
    loop = Loop(strategy, evaluate, study, trials, images, report)
    entries = study.entries()
    asked_at = entries[-1].asked_at if entries else 0
    strategy.tell([entry.trial for entry in entries[:asked_at]])
    for entry in entries:
        loop.note(entry)
    pending = entries[asked_at:]
    futile = 0
    while pending or (loop.left and futile < FUTILE_ASKS):
        if not pending or len(pending) < pending[0].of:
            size = pending[0].asked if pending else min(batch, loop.left)
            began = time.perf_counter()
            proposals = strategy.ask(size)
            asking = time.perf_counter() - began
            if not proposals:
                break
            proposals = [loop.checked(proposal) for proposal in proposals]
            rest = proposals[len(pending) :]
            of = len(proposals)
            pending += [study.start(p, asked_at, size, of, asking / of) for p in rest]
        before = len(loop.known)
        told = loop.finished(pending)
        strategy.tell([entry.trial for entry in told])
        asked_at += len(told)
        pending = []
        futile = 0 if len(loop.known) > before else futile + 1
    exhausted = loop.left > 0
    if loop.known and not loop.whole:
        best = max(loop.known, key=lambda key: loop.known[key].rank)
        proposal = next(e.proposal for e in study.entries() if key_of(e.proposal) == best)
        loop.finished([study.start(replace(proposal, images=None), asked_at, 1, 1)])
    return outcome_of(study, strategy, exhausted)


class Loop:
    """What is evaluated so far, and how much of the budget that took."""

    def __init__(
        self,
        strategy: Strategy,
        evaluate: Evaluate,
        study: Study,
        trials: int,
        images: int | None,
        report: Report,
    ) -> None:
        self.strategy, self.evaluate, self.study = strategy, evaluate, study
        self.trials, self.images, self.report = trials, images, report
        self.known: dict[tuple[str, int | None], Result] = {}
        self.spent = 0.0  # trials
        self.whole: Result | None = None  # the best on all images

    @property
    def left(self) -> int:
        """Trials that may still be asked for."""
        return self.left_beside(0.0)

    def left_beside(self, reserved: float) -> int:
        """Trials that may still be asked for, when so many are asked for already."""
        left = self.trials - self.spent - reserved
        return max(int(left + NEARLY), int(left > NEARLY))

    def price(self, proposal: Proposal) -> float:
        """What evaluating a proposal takes of the budget, in trials."""
        part = proposal.images
        return 1.0 if part is None or self.images is None else part / self.images

    def note(self, entry: Entry) -> None:
        """Charge an evaluated entry, once for each arch and number of images."""
        key = key_of(entry.proposal)
        if not entry.result or key in self.known:
            return
        self.known[key] = entry.result
        self.spent += self.price(entry.proposal)
        if entry.proposal.images is None and (
            self.whole is None or entry.result.rank > self.whole.rank
        ):
            self.whole = entry.result

    def checked(self, proposal: Proposal) -> Proposal:
        """The proposal, on all images if it asks for as many; an error if it is not feasible."""
        name, space = type(self.strategy).__name__, self.strategy.space
        reason = space.misfit(proposal.arch)
        if reason:
            raise StrategyError(f"{name} proposed an arch outside the space: {reason}")
        if not space.feasible(proposal.arch):
            raise StrategyError(f"{name} proposed {proposal.arch!r}, which exceeds the budget")
        if proposal.images is None:
            return proposal
        if proposal.images < 1:
            raise StrategyError(f"{name} proposed to score on {proposal.images} images")
        whole = self.images is not None and proposal.images >= self.images
        return replace(proposal, images=None) if whole else proposal

    def finished(self, pending: Sequence[Entry]) -> list[Entry]:
        """The entries with their results; those of no known arch are evaluated together."""
        new = {
            key: entry.proposal
            for entry in pending
            if not entry.result and (key := key_of(entry.proposal)) not in self.known
        }
        began = time.perf_counter()
        results = iter(self.evaluate(list(new.values())) if new else [])
        share = (time.perf_counter() - began) / max(len(new), 1)
        return [
            entry if entry.result else self._finished(entry, results, share) for entry in pending
        ]

    def _finished(self, entry: Entry, results: Iterator[Result], share: float) -> Entry:
        arch = entry.proposal.arch
        cost = self.strategy.cost(arch) if isinstance(self.strategy, Multiobjective) else None
        known = self.known.get(key_of(entry.proposal))
        if known:
            return self.study.finish(entry, known, 0.0, repeat=True, cost=cost)
        began = time.perf_counter()
        result = next(results)
        seconds = share + time.perf_counter() - began
        entry = self.study.finish(entry, result, seconds, cost=cost)
        self.note(entry)
        note = f"best val {self.whole.accuracy:.3f}" if self.whole else "none on all images yet"
        self.report(
            Progress("search", min(int(self.spent + NEARLY), self.trials), self.trials, note)
        )
        return entry


def key_of(proposal: Proposal) -> tuple[str, int | None]:
    """What two proposals share of which one is evaluated: arch and images."""
    return proposal.arch.digest, proposal.images


def outcome_of(study: Study, strategy: Strategy, exhausted: bool) -> Outcome:
    """What the study holds, summed up."""
    fresh = [entry for entry in study.entries() if entry.result and not entry.repeat]
    if not fresh:
        raise StrategyError(f"{type(strategy).__name__} proposed nothing")
    whole = [entry.trial for entry in fresh if entry.proposal.images is None]
    front = _front(strategy, whole) if isinstance(strategy, Multiobjective) else None
    return Outcome(
        best=max(whole, key=lambda t: t.result.rank),
        evaluations=len(fresh),
        passes=sum(entry.trial.result.passes for entry in fresh),
        computed=sum(entry.trial.result.computed for entry in fresh),
        seconds=sum(entry.seconds + entry.ask_seconds for entry in fresh),
        exhausted=exhausted,
        front=front,
    )


def _front(strategy: Multiobjective, trials: Sequence[Trial]) -> Front:
    costs = [0.0 if trial.cost is None else trial.cost for trial in trials]
    limit = strategy.limit()
    reference = float(limit if limit is not None else max(costs)) or 1.0  # all cost nothing
    points = [(t.result.accuracy, cost) for t, cost in zip(trials, costs, strict=True)]
    ranks = [(t.result.rank, cost) for t, cost in zip(trials, costs, strict=True)]
    front = tuple(trials[i] for i in nondominated(ranks))
    return Front(strategy.axis, reference, hypervolume(points, reference), front)
