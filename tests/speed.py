"""Limits in seconds, for the processor that they are stated for: a slower one is given more."""

from __future__ import annotations

import time

USUAL = 0.05  # processor seconds of `_work` where the limits hold


def _work() -> float:
    """Sums of long integers that lie apart: other work slows memory more than it slows sums."""
    began = time.process_time()
    table = {i * 7919 % 100_003: 1 << i % 300 for i in range(100_000)}
    sum(a * table[b] for b, a in enumerate(table.values()) if b in table)
    return time.process_time() - began


def within(took: float, limit: float) -> bool:
    """Whether something took less than `limit` processor seconds, or than a slow processor needs.

    How slow this one is, is measured only where the limit itself is missed.
    """
    if took < limit:
        return True
    slowness = max(1.0, max(_work() for _ in range(3)) / USUAL)
    return took < limit * slowness
