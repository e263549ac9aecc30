"""Limits in seconds, for the processor that they are stated for: a slower one is given more."""

from __future__ import annotations

import time

USUAL = 0.055  # processor seconds of `_work` where the limits hold


def _work() -> float:
    began = time.process_time()
    sum(i * i for i in range(10**6))
    return time.process_time() - began


def within(took: float, limit: float) -> bool:
    """Whether something took less than `limit` processor seconds, or than a slow processor needs.

    How slow this one is, is measured only where the limit itself is missed.
    """
    if took < limit:
        return True
    slowness = max(1.0, max(_work() for _ in range(3)) / USUAL)
    return took < limit * slowness
