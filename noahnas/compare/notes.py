"""What a reader of a comparison must know beside its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from noahnas.compare.measures import Measures
from noahnas.compare.statistics import FEW


def notes(m: Measures, told: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on a comparison's findings, `told` being the other parts of its summary."""
    plan, count = m.found.plan, len(m.supernets)
    if count == 1:
        yield (
            "One supernet: intervals and tests hold given this supernet; another one may order the "
            "strategies otherwise (--supernet-seeds)."
        )
    elif count < FEW:
        yield (
            f"{count} supernets: intervals that resample so few are too narrow (3 supernets that "
            "differ as much as seeds do: a 95 % interval covers 78 %). The tests hold for "
            "these supernets."
        )
    training = [cost["passes"] for cost in m.found.supernets.values()]
    yield (
        f"Training a supernet took {max(training):,} passes; all search it, and none is charged."
    )
    if not m.retrained_seeds:
        yield "No winner was retrained."
    elif len(m.retrained_seeds) < len(plan.seeds):
        seeds = ", ".join(map(str, m.retrained_seeds))
        yield f"Winners of seeds {seeds} were retrained, of {len(plan.seeds)} seeds searched."
    limits = told["about"]["binding"]
    if limits["share"] is None:
        yield "No draw of the paper prior tells whether the budget on parameters binds."
    elif not limits["binds"]:
        yield (
            "The budget on parameters hardly binds, so the largest architecture tends to win: "
            f"{limits['share']:.0%} of the paper prior passes."
        )
    yield from _spent(m)
    base = m.val(plan.against) if plan.against in m.labels else None
    others = [label for label in m.labels if label != plan.against]
    same = [label for label in others if base is not None and (m.val(label) == base).all()]
    if same:
        yield (
            f"In every pair {', '.join(same)} found what {plan.against} found. Many begin with the "
            "same draws: the budget may have ended before they part, or the best was among them."
        )
    ranks = [n for n, f in told["noise"]["by_supernet"].items() if f["sd"] <= f["per_arch"]]
    if ranks:
        yield (
            f"On {', '.join(ranks)} random architectures differ on val by no more than val and "
            "test differ about one of them: searches rank noise there."
        )
    for label, why in plan.left_out.items():
        yield f"{label} takes no part: {why}"


def _spent(m: Measures) -> Iterator[str]:
    """Who spent more than the budget, and who had nothing to spend it on."""
    ended: dict[int, list[str]] = {}
    for label in m.labels:
        over = m.array(label, lambda r: r.passes).max() - m.budget
        if over > 0 and m.array(label, lambda r: r.training_passes).any():
            yield (
                f"{label} exceeded the budget of {m.budget:,} passes by what it trains; its best "
                "at equal passes is what it had scored by then."
            )
        elif over > 0:
            yield f"{label} spent {over:,.0f} passes beyond the budget in its last step."
        if m.array(label, lambda r: r.exhausted).any():
            most = int(m.array(label, lambda r: len(r.trials)).max())
            ended.setdefault(most, []).append(label)
    for most, labels in ended.items():
        yield (
            f"Nothing more to propose after {most} evaluation{'s' * (most > 1)}, so that the curve "
            f"goes on level: {', '.join(labels)}."
        )
