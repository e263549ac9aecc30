"""How much longer one piece of work takes than another, in pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from models import Work


def pairs(ours: Work, plain: Work, count: int) -> list[tuple[float, float]]:
    """Processor seconds of both, in turns: A B B A."""
    ours(), plain()  # type: ignore[func-returns-value]  # to warm up
    return [pair(ours, plain, number) for number in range(count)]


def pair(ours: Work, plain: Work, number: int) -> tuple[float, float]:
    """Processor seconds of both; ours comes first where `number` is even."""

    def timed(work: Work) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    if number % 2:
        b, a = timed(plain), timed(ours)
    else:
        a, b = timed(ours), timed(plain)
    return a, b


def ratio(
    found: Sequence[tuple[float, float]],
    limit: float | None = None,
    middle: Callable[..., Any] = np.median,
) -> dict[str, Any]:
    """The median (or mean) of paired ratios, its interval, and whether the limit is met."""
    ratios = np.array([a / b for a, b in found])
    rng = np.random.default_rng(0)
    middles = middle(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(middles, [0.025, 0.95])
    about = {"ratio": float(middle(ratios)), "low": float(low), "upper95": float(high),
             "pairs": len(ratios), "ms": 1000 * float(np.median([a for a, _ in found])),
             "plain_ms": 1000 * float(np.median([b for _, b in found]))}  # fmt: skip
    return about | ({} if limit is None else {"limit": limit, "met": bool(high <= limit)})


def show(told: str, about: dict[str, Any]) -> None:
    """One line as soon as it is known."""
    high = about.get("upper95", about.get("highest", about["ratio"]))
    limit = (
        f"limit {about['limit']:.2f} {'met' if about['met'] else 'MISSED'}"
        if "limit" in about
        else ""
    )
    print(f"{told:<38} {about['ratio']:.3f}  upper {high:.3f}  {limit}", flush=True)
