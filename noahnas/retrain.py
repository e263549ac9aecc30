"""Retraining: one architecture, trained alone from the pretrained backbone, tested once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noahnas.backbone import Backbone
from noahnas.data import Task, merge
from noahnas.evaluate import Result, evaluate
from noahnas.progress import Report
from noahnas.recipe import Stage
from noahnas.space import Arch
from noahnas.supernet import Supernet
from noahnas.train import TrainLog, build, train


@dataclass(frozen=True)
class Retrained:
    """A trained network, what it scored on test at its last epoch, and what that cost."""

    net: Supernet
    result: Result
    log: TrainLog


def retrain(
    arch: Arch,
    backbone: Backbone,
    task: Task,
    stage: Stage,
    *,
    seed: int,
    checkpoint: Path,
    report: Report = lambda _: None,
) -> Retrained:
    """Train `arch` on train + val, from the pretrained backbone, and test it at the last epoch.

    Args:
        arch: what to train.
        backbone: freshly loaded; it becomes part of the network.
        task: train and val are used for training, test once.
        stage: hyper-parameters.
        seed: decides initial weights and the order of images.
        checkpoint: written after each epoch; a killed training goes on from it.
        report: called after each epoch.

    Raises:
        ArchError: if the arch does not fit the backbone.
        TrainingError: if training diverges.
    """
    net = build(backbone, arch, len(task.data.classes), stage, seed)
    log = train(
        net,
        task,
        merge(task.data.train, task.data.val),
        stage,
        name="retrain",
        draw=lambda _rng, _step, _steps: arch,
        seed=seed,
        checkpoint=checkpoint,
        report=report,
    )
    return Retrained(net, evaluate(net, arch, task, "test"), log)
