"""What is compared: each search's measures as arrays of supernets × seeds, and its curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from noahnas.compare.record import Record
from noahnas.compare.run import Found
from noahnas.compare.statistics import Array, area, best_so_far

POINTS = 400  # of a curve, at most


@dataclass(frozen=True)
class Measures:
    """Every search of a comparison, number by number."""

    found: Found

    @property
    def labels(self) -> list[str]:
        """Who took part to the end."""
        return [entrant.label for entrant in self.found.plan.entrants]

    @property
    def supernets(self) -> list[str]:
        """Names."""
        return [shared.name for shared in self.found.plan.supernets]

    @cached_property
    def images(self) -> dict[str, int]:
        """Of each split."""
        data = self.found.loaded.task.data
        return {name: len(data.split(name)) for name in ("train", "val", "test")}

    @property
    def chance(self) -> float:
        """What a guess scores: the height of a curve before anything is scored."""
        return 1 / len(self.found.loaded.task.data.classes)

    @property
    def trials(self) -> int:
        """The budget of distinct evaluations."""
        return self.found.plan.trials

    @property
    def budget(self) -> int:
        """The budget of passes."""
        return self.trials * self.images["val"]

    def record(self, label: str, supernet: str, seed: int) -> Record:
        """One search."""
        return self.found.records[label, supernet, seed]

    def array(
        self, label: str, of: Callable[[Record], float], seeds: Sequence[int] | None = None
    ) -> Array:
        """A number of each search of an entrant, (supernets, seeds)."""
        wanted = self.found.plan.seeds if seeds is None else seeds
        return np.array(
            [[of(self.record(label, name, seed)) for seed in wanted] for name in self.supernets],
            dtype=float,
        )

    def val(self, label: str) -> Array:
        """Val accuracy of the winner."""
        return self.array(label, lambda r: r.val.accuracy)

    def at_equal_passes(self, label: str) -> Array:
        """The best val accuracy within the budget of passes; NaN where it bought none."""

        def best(record: Record) -> float:
            scores, _, spent = record.whole()
            return float(best_so_far(scores, spent, np.array([float(self.budget)]))[0])

        return self.array(label, best)

    def test(self, label: str) -> Array | None:
        """Test accuracy of retrained winners, (supernets, retrained seeds); None if none is."""
        seeds = self.retrained_seeds
        if not seeds:
            return None
        return np.array(
            [
                [
                    self.found.retrained[
                        self.record(label, name, seed).winner.digest, seed
                    ].test.accuracy
                    for seed in seeds
                ]
                for name in self.supernets
            ]
        )

    @property
    def retrained_seeds(self) -> list[int]:
        """Seeds whose winners were retrained."""
        return [seed for seed in self.found.plan.seeds if seed in self.found.plan.retrain_seeds]

    def optimism(self, label: str) -> Array:
        """Val − test of winners under the shared weights, less that of archs nobody selected."""
        gap = self.array(label, lambda r: r.val.accuracy - r.test.accuracy)
        floors = [self.found.floors[name] for name in self.supernets]
        unselected = np.array([np.mean(f.val) - np.mean(f.test) for f in floors])  # (supernets)
        return np.asarray(gap - unselected[:, None])

    def area(self, label: str, axis: str) -> Array:
        """The mean over a budget of the best val accuracy so far, from `chance`."""

        def under(record: Record) -> float:
            scores, evaluations, spent = record.whole()
            if axis == "passes":
                return area(scores, spent, self.budget, self.chance)
            # The arch under evaluation counts when it is known: the first one at evaluation 1.
            known = [max(spent_on - 1, 0.0) for spent_on in evaluations]
            return area(scores, known, self.trials, self.chance)

        return self.array(label, under)

    def points(self, axis: str) -> Array:
        """Where curves are looked at, (T)."""
        most = self.budget if axis == "passes" else self.trials
        steps = min(POINTS, self.trials)
        return np.unique(np.round(np.linspace(most / steps, most, steps)))

    def curves(self, label: str, axis: str) -> Array:
        """The best val accuracy so far, (supernets, seeds, T); NaN before the first."""
        at = self.points(axis)

        def curve(record: Record) -> Array:
            scores, evaluations, spent = record.whole()
            return best_so_far(scores, spent if axis == "passes" else evaluations, at)

        rows = [
            [curve(self.record(label, name, seed)) for seed in self.found.plan.seeds]
            for name in self.supernets
        ]
        return np.array(rows)
