"""Retraining: one architecture, trained alone from the pretrained backbone, tested once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from noahnas.backbone import Backbone
from noahnas.data import Dataset, merge
from noahnas.evaluate import Result, evaluate
from noahnas.recipe import Stage
from noahnas.space import Arch
from noahnas.supernet import Supernet
from noahnas.train import Report, TrainLog, build, train


@dataclass(frozen=True)
class Retrained:
    """A trained network, what it scored on test at its last epoch, and what that cost."""

    net: Supernet
    result: Result
    log: TrainLog


def retrain(
    arch: Arch,
    backbone: Backbone,
    data: Dataset,
    stage: Stage,
    *,
    name: str,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    report: Report = lambda _: None,
) -> Retrained:
    """Train `arch` on train + val, from the pretrained backbone, and test it at the last epoch.

    `Arch()`, with nothing in it, is the linear probe: only the head is trained.

    Args:
        arch: what to train.
        backbone: freshly loaded; it becomes part of the network.
        data: train and val are used for training, test once.
        stage: hyper-parameters.
        name: "retrain" or "probe"; shown in progress, and part of the random state.
        seed: decides initial weights and the order of images.
        device: where to train.
        checkpoint: written after each epoch; a killed training goes on from it.
        report: called after each epoch.

    Raises:
        ArchError: if the arch does not fit the backbone.
        TrainingError: if training diverges.
    """
    net = build(backbone, arch, len(data.classes), stage, seed)
    log = train(
        net,
        merge(data.train, data.val),
        stage,
        name=name,
        draw=lambda _rng: arch,
        preprocess=backbone.preprocess,
        device=device,
        seed=seed,
        checkpoint=checkpoint,
        report=report,
    )
    result = evaluate(net, arch, data.test, "test", preprocess=backbone.preprocess, device=device)
    return Retrained(net, result, log)
