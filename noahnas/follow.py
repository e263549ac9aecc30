"""What a process does that trains along: it waits for rank 0 to begin a training, and takes part.

All that it needs to know comes from rank 0, but for data and weights, which it loads itself.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from noahnas.errors import NoahnasError, RanksError, RunError, TrainingError
from noahnas.loaded import Loaded, load
from noahnas.printable import printable
from noahnas.progress import silent
from noahnas.ranks import READY, Ranks, joined
from noahnas.stages import Job, retrain_job, train_supernet

FAULT = 2  # exit code


def follow(ranks: Ranks) -> None:
    """Take part in rank 0's trainings until it has none left; nothing is written.

    Raises:
        RunError: if data or weights are not those of rank 0.
        NoahnasError: if they cannot be loaded, or a training ends early.
    """
    loaded: Loaded | None = None
    nowhere = Path(os.devnull)
    while (job := ranks.share()) is not None:
        assert isinstance(job, Job)
        loaded = replace(loaded or load(job.inputs, silent), inputs=job.inputs)
        for what, digest in loaded.digests().items():
            if digest != job.digests[what]:
                raise RunError(f"process {ranks.rank}: the {what} is not that of process 0")
        if job.arch is not None:
            retrain_job(loaded, job, nowhere, silent, ranks)
        else:
            assert loaded.inputs.space is not None  # as there is a supernet
            space = loaded.bound(loaded.inputs.space)
            train_supernet(loaded, loaded.supernet(space), space, nowhere, silent, ranks)


def followed(ranks: Ranks) -> int:
    """`follow`, and an exit code; what rank 0 tells as well is not told twice."""
    try:
        follow(ranks)
    except (TrainingError, RanksError):
        return FAULT
    except NoahnasError as e:
        sys.stderr.write(printable(f"error: process {ranks.rank}: {e}\n"))
        return FAULT
    return 0


def main() -> None:
    """A process begun by rank 0, with the kind of device as its argument."""
    with suppress(ImportError):  # told by rank 0, which lacks it as well
        import lightning_fabric.strategies.ddp  # noqa: F401  # seconds; others wait without end
    os.write(sys.stdout.fileno(), READY)
    try:
        with joined(None, None, sys.argv[1]) as ranks:
            code = followed(ranks)
    except RanksError:
        code = FAULT
    sys.exit(code)
