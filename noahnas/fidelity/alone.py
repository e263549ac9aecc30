"""Architectures trained alone and scored on val: what a supernet's scores should foretell.

Each training is a file of its own, written when it ends, and a checkpoint until then; so many of
them, killed at any time, go on where they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from noahnas.errors import TrainingError
from noahnas.evaluate import Result, evaluate
from noahnas.loaded import Loaded
from noahnas.policy import only
from noahnas.progress import Progress, Report, silent
from noahnas.recipe import Stage
from noahnas.rundir import RunDirectory, reading
from noahnas.space import Arch
from noahnas.train import build, train
from noahnas.typed import typed


@dataclass(frozen=True)
class Alone:
    """What an architecture scored that was trained alone, and what that cost."""

    result: Result  # on val, at the last epoch
    passes: int  # of the training: images through the backbone, forward equivalents
    seconds: float  # of the training


def train_all(
    pairs: Sequence[tuple[Arch, int]],
    loaded: Loaded,
    stage: Stage,
    folder: Path,
    report: Report = silent,
) -> list[Alone]:
    """Train each (arch, seed) alone, from the pretrained backbone, on train; score it on val.

    What `folder` holds of this stage, data, backbone and precision is read, and what was begun goes
    on. Two processes must not work in one folder.

    Args:
        pairs: what to train; a pair that occurs twice is trained once.
        loaded: backbone and data.
        stage: hyper-parameters.
        folder: where each training is kept; it must exist.
        report: called after each epoch, with the epochs of all trainings together.

    Raises:
        TrainingError: if a training diverges.
        RunError: if a kept file is damaged.
    """
    names = {pair: _name(*pair, loaded, stage) for pair in pairs}
    missing = [pair for pair in names if not (folder / f"{names[pair]}.json").is_file()]
    total, done = len(names) * stage.epochs, (len(names) - len(missing)) * stage.epochs
    report(Progress("alone", done, total, f"{len(names) - len(missing)} of {len(names)} trained"))
    for pair in missing:
        number = done // stage.epochs + 1

        def told(progress: Progress, before: int = done, number: int = number) -> None:
            note = f"training {number} of {len(names)} · {progress.note}"
            report(Progress("alone", before + progress.done, total, note))

        _train(*pair, loaded, stage, folder, names[pair], told)
        done += stage.epochs
    return [_read(folder, names[pair]) for pair in pairs]


def _name(arch: Arch, seed: int, loaded: Loaded, stage: Stage) -> str:
    """A file's name that tells apart all that a score depends on."""
    task = loaded.task
    what = asdict(stage) | loaded.digests() | {"on": [task.device.type, task.precision]}
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
    return f"{arch.digest}-{seed}-{key}"


def _train(
    arch: Arch, seed: int, loaded: Loaded, stage: Stage, folder: Path, name: str, report: Report
) -> None:
    task, checkpoint = loaded.fed(stage), folder / f"{name}.ckpt"
    net = build(loaded.fresh(stage), arch, len(task.data.classes), stage, seed)
    try:
        log = train(
            net,
            task,
            task.data.train,
            stage,
            name="alone",
            plan=only(arch),
            seed=seed,
            checkpoint=checkpoint,
            report=report,
        )
    except TrainingError as e:
        raise TrainingError(f"{arch!r}, seed {seed}: {e}") from None
    kept: dict[str, Any] = {
        "arch": arch.to_dict(),
        "seed": seed,
        "stage": asdict(stage),
        "result": evaluate(net, arch, task).to_dict(),
        "losses": log.losses,
        "passes": log.passes,
        "seconds": log.seconds,
    }
    RunDirectory(folder).write_json(f"{name}.json", kept)
    checkpoint.unlink(missing_ok=True)


def _read(folder: Path, name: str) -> Alone:
    kept = RunDirectory(folder).read_json(f"{name}.json", "result", "passes", "seconds")
    (folder / f"{name}.ckpt").unlink(missing_ok=True)  # left where a kill came in between
    with reading(folder / f"{name}.json"):
        return Alone(typed(Result, kept["result"], "result"), kept["passes"], kept["seconds"])
