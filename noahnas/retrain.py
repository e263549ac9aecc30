"""Retraining: one architecture, trained alone from the pretrained backbone, tested once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from noahnas.backbone import Backbone
from noahnas.data import Task, merge
from noahnas.errors import ArchError
from noahnas.evaluate import Result, evaluate
from noahnas.policy import only
from noahnas.progress import Report
from noahnas.ranks import ALONE, Ranks
from noahnas.recipe import Stage
from noahnas.space import Arch
from noahnas.supernet import Supernet
from noahnas.train import TrainLog, build, train


@dataclass(frozen=True)
class Retrained:
    """A trained network, what it scored on test at its last epoch, and what that cost.

    `log.marks` holds the test accuracy of epochs that were tested on the way, None for others.
    """

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
    on: str = "train+val",
    full: bool = False,
    test_every: int = 0,
    split: str = "test",
    start: Mapping[str, Tensor] | None = None,
    name: str = "retrain",
    ranks: Ranks = ALONE,
) -> Retrained | None:
    """Train `arch` on the pretrained backbone, and test it at the last epoch.

    Args:
        arch: what to train.
        backbone: freshly loaded; it becomes part of the network.
        task: train and val are used for training, test once.
        stage: hyper-parameters.
        seed: decides initial weights and the order of images.
        checkpoint: written after each epoch; a killed training goes on from it.
        report: called after each epoch.
        on: "train+val", or "train" alone.
        full: train all weights of the backbone, too.
        test_every: test after the first epoch and every so many after it as well, as papers do
            that report their best epoch; 0 = at the last epoch alone.
        split: what it is scored on at the end; "val" for choosing hyper-parameters, with `on`
            "train".
        start: trained tensors of a supernet that has the arch: modules and head begin with its
            weights (`inherit`) and not with new ones.
        name: of the stage: `report` is told it, and what the training draws depends on it.
        ranks: the processes that train it together.

    Returns:
        None on other ranks than 0, which train along and test nothing.

    Raises:
        ArchError: if the arch does not fit the backbone.
        TrainingError: if training diverges.
    """
    net = build(backbone, arch, len(task.data.classes), stage, seed, full=full)
    if start:
        inherit(net, start)

    def tested(epoch: int) -> float | None:
        if epoch % test_every and epoch != stage.epochs - 1:
            return None
        return evaluate(net, arch, task, "test").accuracy

    log = train(
        net,
        task,
        task.data.train if on == "train" else merge(task.data.train, task.data.val),
        stage,
        name=name,
        plan=only(arch),
        seed=seed,
        checkpoint=checkpoint,
        report=report,
        mark=tested if test_every else None,
        ranks=ranks,
    )
    if not ranks.leads:
        return None
    return Retrained(net, evaluate(net, arch, task, split), log)


@torch.no_grad()
def inherit(net: Supernet, start: Mapping[str, Tensor]) -> None:
    """Give the network of one arch the weights that the arch has in a supernet, head included.

    A smaller dim is the first part of a larger one, so each tensor is the corner of the supernet's
    tensor of that name; `net` computes what the supernet does under its arch.

    Args:
        net: of one arch.
        start: the supernet's tensors by name (`Supernet.trainable`).

    Raises:
        ArchError: if the supernet holds no weights for the arch.
    """
    for name, own in net.trainable().items():
        whole = start.get(name)
        if whole is None or any(n < m for n, m in zip(whole.shape, own.shape, strict=True)):
            raise ArchError(f"the supernet has no weights {name} of {tuple(own.shape)}")
        own.copy_(whole[tuple(slice(size) for size in own.shape)])
