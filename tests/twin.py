"""One of two processes with the same strategy and the same seed on one study.

    python -m tests.twin URL FOLDER NAME OTHER

Both ask before either has told anything, so both propose the same. What NAME evaluates stands in
FOLDER/NAME.evaluated, a digest a line; FOLDER/NAME.json holds the study as NAME saw it at the end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from noahnas.evaluate import Result
from noahnas.shared import join, search_shared
from noahnas.storage import opened
from noahnas.strategies.random_search import RandomSearch
from noahnas.strategy import Proposal
from noahnas.study import Study

from .test_strategies import bound, score

STUDY, SEED, TRIALS, BATCH = "twins", 1, 23, 5


def main(url: str, place: str, name: str, other: str) -> None:
    """Search."""
    space, folder = bound(), Path(place)

    class Together(RandomSearch):
        def ask(self, n: int) -> list[Proposal]:
            proposals = super().ask(n)
            (folder / f"{name}.asked").touch()
            while not (folder / f"{other}.asked").exists():
                time.sleep(0.01)
            return proposals

    def evaluate(proposals: Sequence[Proposal]) -> Iterator[Result]:
        with (folder / f"{name}.evaluated").open("a", buffering=1) as log:
            for proposal in proposals:
                time.sleep(0.05)
                log.write(f"{proposal.arch.digest}\n")
                yield score(space, proposal).result

    with opened(url) as storage:
        study = Study(storage, space, STUDY, name, {"space": "same"})
        join(study, SEED)
        outcome = search_shared(
            Together(space, SEED), evaluate, study, trials=TRIALS, batch=BATCH
        )  # fmt: skip
        entries = [
            (e.number, e.proposal.arch.digest, e.worker, e.repeat)
            for e in study.entries()
            if e.result
        ]
    found = {"entries": entries, "evaluations": outcome.evaluations}
    (folder / f"{name}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
