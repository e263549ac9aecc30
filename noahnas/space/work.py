"""What counting may cost, told before it is spent."""

from __future__ import annotations

MAX_WORK = 1_200_000  # sums of integers after which counting is given up: a quarter of a second
LOOK_WORK = 200_000  # of it to find out which values no price tells apart, where it only helps
ROW_WORK = 6_000_000  # operations on arrays of gene vectors: a tenth of a second
TRY_WORK = 1_000_000  # steps of uniform draws one by one: a third of a second


class UncountableError(Exception):
    """Counting would take too long."""


class Work:
    """What counting has cost so far."""

    def __init__(self, limit: int = MAX_WORK) -> None:
        self.left = limit

    def spend(self, steps: int) -> None:
        """Raise UncountableError if there is not so much left."""
        self.left -= steps
        if self.left < 0:
            raise UncountableError
