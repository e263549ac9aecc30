"""What counting may cost, told before it is spent."""

from __future__ import annotations

# In sums of integers, of which a second does some five million on one core.
COUNT_WORK = 500_000  # counting by parameters
SIZE_WORK = 1_200_000  # counting regardless of cost
EXTREME_WORK = 300_000  # finding a cheapest or dearest architecture
SOUGHT_WORK = 1_200_000  # the same, where it is asked for by itself
RELAXED_WORK = 150_000  # counting with fewer rules, where all of them are too many
LOOK_WORK = 200_000  # telling values by their prices, where it only helps
ROW_WORK = 5_000_000  # operations on arrays of gene vectors: a tenth of a second
LOOK_TRIES, SAMPLE_TRIES = 100_000, 200_000  # steps of uniform draws one by one


class UncountableError(Exception):
    """Counting would take too long."""


class Work:
    """What counting has cost so far."""

    def __init__(self, limit: int = COUNT_WORK) -> None:
        self.left = limit

    def spend(self, steps: int) -> None:
        """Raise UncountableError if there is not so much left."""
        self.left -= steps
        if self.left < 0:
            raise UncountableError
