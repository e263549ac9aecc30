"""Evaluating an architecture on a split, under weights as they are."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas.data import Split, Task
from noahnas.errors import NoahnasError, TrainingError
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


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; auto takes a GPU when there is one.

    Raises:
        NoahnasError: if the device is unknown or absent.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise NoahnasError(f"unknown device '{name}' (known: auto, cpu, cuda)")
    if name == "cuda" and not torch.cuda.is_available():
        raise NoahnasError("no CUDA device here; use --device cpu or --device auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def precision(device: torch.device) -> str:
    """The precision used on a device: bf16 where it is faster (a GPU that has it), else fp32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp32"


def autocast(device: torch.device) -> Any:
    """A context in which a forward runs in the device's precision."""
    if precision(device) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


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
        with autocast(task.device):
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
        with autocast(task.device):
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
