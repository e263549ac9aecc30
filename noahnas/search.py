"""The search loop: budget, de-duplication, persistence and progress, for any strategy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from noahnas.errors import StrategyError
from noahnas.evaluate import Result
from noahnas.progress import Progress, Report
from noahnas.strategy import Proposal, Strategy, Trial
from noahnas.study import Entry, Study

Evaluate = Callable[[Sequence[Proposal]], Iterable[Result]]
FUTILE_ASKS = 100  # in a row without a new arch, after which a search ends


@dataclass(frozen=True)
class Outcome:
    """What a search found."""

    best: Trial
    evaluations: int  # distinct architectures evaluated
    passes: int  # images through the backbone, forward equivalents
    computed: float  # passes that were; blocks that architectures have in common count once
    seconds: float  # of asking and evaluating
    exhausted: bool  # the strategy had no more to propose before the budget of trials was spent


def search(
    strategy: Strategy,
    evaluate: Evaluate,
    study: Study,
    *,
    trials: int,
    batch: int,
    report: Report = lambda _: None,
) -> Outcome:
    """Ask, evaluate, tell, until `trials` distinct architectures are evaluated.

    Goes on where `study` stands: the strategy, which must be new, is told its history; an ask that
    was cut short is asked again, which gives the same proposals, and what was not evaluated is. A
    proposal seen before is scored from the study and costs nothing.

    Args:
        strategy: a new one.
        evaluate: scores proposals on the validation split, all of an ask at once; a result is
            written as soon as it is yielded.
        study: where every trial is written, before the strategy is told.
        trials: distinct architectures to evaluate, those of the study included.
        batch: architectures asked for at a time.
        report: called after each trial.

    Raises:
        StrategyError: if the strategy proposes what is infeasible, or nothing at all.
    """
    entries = study.entries()
    known = {key: e.result for e in entries if e.result and (key := _key(e.proposal))}
    asked_at = entries[-1].asked_at if entries else 0
    strategy.tell([entry.trial for entry in entries[:asked_at]])
    pending = entries[asked_at:]
    futile = 0
    while pending or (len(known) < trials and futile < FUTILE_ASKS):
        if not pending or len(pending) < pending[0].of:
            size = pending[0].asked if pending else min(batch, trials - len(known))
            began = time.perf_counter()
            proposals = strategy.ask(size)
            asking = time.perf_counter() - began
            if not proposals:
                break
            for proposal in proposals:
                _check(strategy, proposal)
            rest = proposals[len(pending) :]
            of = len(proposals)
            pending += [study.start(p, asked_at, size, of, asking / of) for p in rest]
        before = len(known)
        told = _finished(pending, evaluate, study, known, trials, report)
        strategy.tell([entry.trial for entry in told])
        asked_at += len(told)
        pending = []
        futile = 0 if len(known) > before else futile + 1
    return _outcome(study, trials, strategy)


def _key(proposal: Proposal) -> tuple[str, int | None]:
    return proposal.arch.digest, proposal.images


def _check(strategy: Strategy, proposal: Proposal) -> None:
    name, space = type(strategy).__name__, strategy.space
    reason = space.misfit(proposal.arch)
    if reason:
        raise StrategyError(f"{name} proposed an arch outside the space: {reason}")
    if not space.feasible(proposal.arch):
        raise StrategyError(f"{name} proposed {proposal.arch!r}, which exceeds the budget")


def _finished(
    pending: Sequence[Entry],
    evaluate: Evaluate,
    study: Study,
    known: dict[tuple[str, int | None], Result],
    trials: int,
    report: Report,
) -> list[Entry]:
    """The entries with their results, in order; those of no known arch are evaluated together."""
    new = {_key(e.proposal): e for e in pending if not e.result and _key(e.proposal) not in known}
    began = time.perf_counter()
    results = iter(evaluate([entry.proposal for entry in new.values()]) if new else [])
    share = (time.perf_counter() - began) / max(len(new), 1)
    told = []
    for entry in pending:
        key = _key(entry.proposal)
        if entry.result:
            told.append(entry)
        elif key in known:
            told.append(study.finish(entry, known[key], 0.0, repeat=True))
        else:
            began = time.perf_counter()
            known[key] = next(results)
            seconds = share + time.perf_counter() - began
            told.append(study.finish(entry, known[key], seconds))
            best = max(known.values(), key=lambda r: r.rank)
            report(Progress("search", len(known), trials, f"best val {best.accuracy:.3f}"))
    return told


def _outcome(study: Study, trials: int, strategy: Strategy) -> Outcome:
    fresh = [entry for entry in study.entries() if entry.result and not entry.repeat]
    if not fresh:
        raise StrategyError(f"{type(strategy).__name__} proposed nothing")
    whole = [entry.trial for entry in fresh if entry.proposal.images is None]
    best = max(whole or [entry.trial for entry in fresh], key=lambda t: t.result.rank)
    return Outcome(
        best=best,
        evaluations=len(fresh),
        passes=sum(entry.trial.result.passes for entry in fresh),
        computed=sum(entry.trial.result.computed for entry in fresh),
        seconds=sum(entry.seconds + entry.ask_seconds for entry in fresh),
        exhausted=len(fresh) < trials,
    )
