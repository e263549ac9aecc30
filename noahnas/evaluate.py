"""Evaluating an architecture on a split, under weights as they are."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas.data import Split, Task
from noahnas.device import autocast
from noahnas.errors import TrainingError
from noahnas.space import Arch
from noahnas.supernet import Supernet


@dataclass(frozen=True)
class Result:
    """What one evaluation measured."""

    accuracy: float  # in [0, 1], on `split`
    balanced_accuracy: float  # mean of the classes' accuracies, in [0, 1], on `split`
    loss: float  # mean cross-entropy in nats, on `split`
    params: int  # trainable prompt parameters, head excluded
    passes: int  # images through the backbone, forward equivalents
    split: str  # "val" during search; "test" once, after retraining

    @property
    def rank(self) -> tuple[float, float]:
        """What a search maximises: accuracy, ties broken by loss."""
        return self.accuracy, -self.loss

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)


@torch.inference_mode()
def evaluate(
    net: Supernet,
    arch: Arch,
    task: Task,
    split: str = "val",
    *,
    images: int | None = None,
    batch_size: int = 256,
) -> Result:
    """Accuracy and loss of `arch` on the first `images` of a split (None: all of them).

    Raises:
        TrainingError: if a logit is not finite.
    """
    net.eval()
    data = task.data.split(split)
    part = data if images is None else Split(data.images[:images], data.labels[:images])
    found = []
    for x, _ in part.batches(batch_size, task.preprocess, task.device):
        with autocast(task.device, task.precision):
            found.append(net(x, arch).float().cpu())  # (b, classes)
    logits = torch.cat(found)  # (n, classes)
    if not torch.isfinite(logits).all():
        raise TrainingError(f"the logits of {arch!r} on {split} are not finite")
    return scored(logits, part.labels, params=net.params(arch), split=split)


@torch.inference_mode()
def latency(net: Supernet, arch: Arch, task: Task, repeats: int = 5) -> float:
    """Milliseconds of a forward of one val image: the median of `repeats`, after one to warm up."""
    net.eval()
    one = Split(task.data.val.images[:1], task.data.val.labels[:1])
    ((x, _),) = one.batches(1, task.preprocess, task.device)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        with autocast(task.device, task.precision):
            net(x, arch).float().cpu()  # (1, classes); on the CPU it has been computed
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def scored(logits: Tensor, labels: Tensor, *, params: int, split: str) -> Result:
    """The result of logits (n, classes) for labels (n,), at a pass an image."""
    hit = (logits.argmax(dim=1) == labels).double()  # (n)
    per_class = [hit[labels == c].mean().item() for c in labels.unique()]
    return Result(
        accuracy=hit.mean().item(),
        balanced_accuracy=sum(per_class) / len(per_class),
        loss=F.cross_entropy(logits.double(), labels).item(),
        params=params,
        passes=len(labels),
        split=split,
    )
