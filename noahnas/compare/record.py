"""The record of one search of a comparison: every trial at its full price, and the winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noahnas.evaluate import Result
from noahnas.space import Arch, Space
from noahnas.study import Entry
from noahnas.typed import typed

Place = tuple[str, str, int]  # of a search: label, supernet, seed
Key = tuple[str, int | None]  # an arch's digest, and the images it was scored on; None = all
Known = dict[Key, tuple[Result, float]]  # what was scored, with the seconds that took
MEASURED = ("accuracy", "balanced_accuracy", "loss", "params", "passes")


@dataclass(frozen=True)
class Scored:
    """One distinct trial.

    Its price is that of an evaluation made for it alone, though another entrant may have had the
    same arch scored before.
    """

    digest: str
    vector: tuple[int, ...]  # gene indices
    images: int | None  # None = all of val
    result: Result
    asking: float  # seconds
    evaluating: float  # seconds

    @property
    def key(self) -> Key:
        """By which another entrant's evaluation is found."""
        return self.digest, self.images


@dataclass(frozen=True)
class Record:
    """One finished search."""

    trials: tuple[Scored, ...]  # distinct, in the order in which they were evaluated
    training_passes: int  # of a one-shot strategy
    training_seconds: float
    winner: Arch
    val: Result  # the winner's
    test: Result  # the winner's under the shared weights: for its optimism alone
    allowed: int  # evaluations that were within both budgets
    exhausted: bool  # it had no more to propose
    front: Mapping[str, Any] | None = None  # of a multi-objective strategy

    @property
    def passes(self) -> int:
        """Passes of the whole search."""
        return self.training_passes + sum(trial.result.passes for trial in self.trials)

    @property
    def seconds(self) -> float:
        """Seconds of the whole search."""
        took = sum(trial.asking + trial.evaluating for trial in self.trials)
        return self.training_seconds + took

    def whole(self) -> tuple[list[float], list[float], list[int]]:
        """Accuracies of trials on all of val, and what had been spent: evaluations, passes.

        A trial on fewer images is charged its share of an evaluation.
        """
        scores, evaluations, spent = [], [], []
        passes = 0
        for trial in self.trials:
            passes += trial.result.passes
            if trial.images is None:
                scores.append(trial.result.accuracy)
                evaluations.append(passes / self.val.passes)
                spent.append(self.training_passes + passes)
        return scores, evaluations, spent

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; trials as columns."""
        return {
            "trials": {
                "digest": [t.digest for t in self.trials],
                "vector": [list(t.vector) for t in self.trials],
                "images": [t.images for t in self.trials],
                "asking": [t.asking for t in self.trials],
                "evaluating": [t.evaluating for t in self.trials],
            },
            "results": {key: [getattr(t.result, key) for t in self.trials] for key in MEASURED},
            "training_passes": self.training_passes,
            "training_seconds": self.training_seconds,
            "winner": self.winner.to_dict(),
            "val": self.val.to_dict(),
            "test": self.test.to_dict(),
            "allowed": self.allowed,
            "exhausted": self.exhausted,
            "front": self.front,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of `to_dict`."""
        rows = zip(*(values["results"][key] for key in MEASURED), strict=True)
        named = (dict(zip(MEASURED, row, strict=True)) | {"split": "val"} for row in rows)
        results = [typed(Result, found, "results") for found in named]
        told = values["trials"]
        trials = zip(
            told["digest"],
            map(tuple, told["vector"]),
            told["images"],
            results,
            told["asking"],
            told["evaluating"],
            strict=True,
        )
        return cls(
            tuple(Scored(*trial) for trial in trials),
            values["training_passes"],
            values["training_seconds"],
            Arch.from_dict(values["winner"]),
            typed(Result, values["val"], "val"),
            typed(Result, values["test"], "test"),
            values["allowed"],
            values["exhausted"],
            values["front"],
        )


def scored(entries: Sequence[Entry], space: Space, known: Known) -> tuple[Scored, ...]:
    """The distinct trials of a study, each with the seconds of the evaluation when it was made."""
    found = []
    for entry in entries:
        if entry.result and not entry.repeat:
            arch, images = entry.proposal.arch, entry.proposal.images
            _, took = known.get((arch.digest, images), (None, entry.seconds))
            vector = tuple(space.encode(arch))
            found.append(Scored(arch.digest, vector, images, entry.result, entry.ask_seconds, took))
    return tuple(found)
