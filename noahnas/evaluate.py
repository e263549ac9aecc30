"""Evaluating architectures on a split, under weights as they are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas.backbone import weights_digest
from noahnas.data import Split, Task
from noahnas.device import autocast, cast
from noahnas.errors import TrainingError
from noahnas.memory import halving
from noahnas.prefixes import Kept, Node, deep, tree, wide
from noahnas.space import Arch
from noahnas.supernet import Supernet

CHUNK = 2048  # tokens of a batch on a CPU: more of them leave its caches
HELD = 2**26  # bytes of tokens that are held on a CPU for each block where architectures part
ON_GPU = 256  # images of a batch on a GPU
TOGETHER = 2048  # images of one forward on a GPU, those of all its architectures counted


@dataclass(frozen=True, slots=True)
class Result:
    """What one evaluation measured."""

    accuracy: float  # in [0, 1], on `split`
    balanced_accuracy: float  # mean of the classes' accuracies, in [0, 1], on `split`
    loss: float  # mean cross-entropy in nats, on `split`
    params: int  # trainable prompt parameters, head excluded
    passes: int  # images through the backbone, forward equivalents; the price, blocks shared or not
    split: str  # "val" during search; "test" once, after retraining
    computed: float = field(default=0.0, compare=False)  # passes that were, shared blocks once
    by: str = "accuracy"  # what a search ranks it by: that, or "loss"

    @property
    def rank(self) -> tuple[float, float]:
        """What a search maximises: accuracy, ties broken by loss; or the other way round."""
        by_accuracy = self.accuracy, -self.loss
        return by_accuracy if self.by == "accuracy" else by_accuracy[::-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)


def evaluate(
    net: Supernet,
    arch: Arch,
    task: Task,
    split: str = "val",
    *,
    images: int | None = None,
    batch_size: int | None = None,
) -> Result:
    """Accuracy and loss of `arch` on the first `images` of a split (None: all of them).

    Raises:
        TrainingError: if a logit is not finite.
    """
    return evaluate_batch(net, [arch], task, split, images=[images], batch_size=batch_size)[0]


@torch.inference_mode()
def evaluate_batch(
    net: Supernet,
    archs: Sequence[Arch],
    task: Task,
    split: str = "val",
    *,
    images: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    kept: Kept | None = None,
) -> list[Result]:
    """Accuracy and loss of architectures, in their order; what they have in common is done once.

    Blocks before the first difference are computed once for all architectures on as many images,
    whatever the order. On a CPU one architecture comes after the other, and its score does not
    depend on which others are asked for with it. On a GPU several run in one forward, which may
    round otherwise.

    Args:
        net: their weights.
        archs: what is evaluated. One that is asked for twice is evaluated once.
        task: data, device and precision.
        split: train, val or test.
        images: for each arch how many of the split, from the first; None: all of them.
        batch_size: images at a time; what the device computes fastest if not given.
        kept: first blocks of architectures that came before, under the same weights, images and
            precision; those of these are added. On a CPU, where all images are held at once.

    Raises:
        TrainingError: if a logit is not finite.
        ArchError: if the network holds no weights for an arch.
    """
    net.eval()
    data = task.data.split(split)
    wanted = [len(data) if n is None else min(n, len(data)) for n in images or [None] * len(archs)]
    pairs = list(zip(archs, wanted, strict=True))
    found: dict[tuple[Arch, int], Result] = {}
    for count in dict.fromkeys(wanted):
        part = Split(data.images[:count], data.labels[:count])
        these = dict.fromkeys(arch for arch, n in pairs if n == count)
        root = tree(net, list(these), (split, count))
        logits_of, shares = _logits(net, root, part, task, batch_size, kept)
        for arch, logits in logits_of.items():
            if not torch.isfinite(logits).all():
                raise TrainingError(f"the logits of {arch!r} on {split} are not finite")
            found[arch, count] = scored(
                logits,
                part.labels,
                params=net.params(arch),
                split=split,
                computed=shares[arch] * count,
            )
    return [found[pair] for pair in pairs]


def _logits(
    net: Supernet,
    root: Node,
    part: Split,
    task: Task,
    batch_size: int | None,
    kept: Kept | None,
) -> tuple[dict[Arch, Tensor], dict[Arch, float]]:
    """(n, classes) of each arch, on the CPU; in smaller batches where memory runs out.

    Returns:
        These, and each arch's part of the blocks that were computed (`Node.shares`).
    """
    together = task.device.type != "cpu" and len(root.archs) > 1
    most = max(1, CHUNK // net.shape.tokens) if task.device.type == "cpu" else ON_GPU
    size = batch_size or (max(1, min(most, TOGETHER // len(root.archs))) if together else most)
    held = 1 if together else max(1, HELD // (4 * net.shape.tokens * net.width * size))  # batches
    whole = task.device.type == "cpu" and len(part) <= held * size
    keep = kept.add if kept and whole else None
    known = kept.find(root) if kept and whole else {}

    def computed(few: int) -> dict[Arch, Tensor]:
        if kept and few < size:  # memory has run out
            kept.clear()
            known.clear()
        found: dict[Arch, list[Tensor]] = {arch: [] for arch in root.archs}
        batches = (x for x, _ in part.batches(few, task.preprocess, task.device))
        with cast(net.backbone, task.precision), autocast(task.device, task.precision):
            while images := list(islice(batches, held)):
                if together:
                    each = wide(net, images[0], root, TOGETHER)
                else:
                    each = deep(net, images, root, known, keep if few == size else None)
                for arch, logits in each:
                    found[arch].append(logits.float())  # (b, classes)
        return {arch: torch.cat(parts).cpu() for arch, parts in found.items()}

    return halving(computed, size, "evaluating")[0], root.shares(net.blocks, known)


class Scores:
    """Scores under weights that stay as they are: an arch is evaluated once on as many images.

    The weights, the images and the precision are part of what a score is kept by, so one that was
    got under others is never returned. First blocks that an arch shares with earlier ones are not
    computed again (`Kept`). Kept in memory; what outlives a process is the study. Results are
    ranked `by` accuracy or by loss.
    """

    def __init__(self, net: Supernet, task: Task, split: str = "val", by: str = "accuracy") -> None:
        self.net, self.task, self.split, self.by = net, task, split, by
        self._known: dict[tuple[str, int | None], Result] = {}
        self._kept = Kept()
        self._of = self._digest()

    def __call__(
        self, archs: Sequence[Arch], images: Sequence[int | None] | None = None
    ) -> list[Result]:
        """As `evaluate_batch`; a score that was there already cost no pass that was computed."""
        if self._digest() != self._of:
            self._known, self._of = {}, self._digest()
            self._kept.clear()
        keys = [
            (arch.digest, n) for arch, n in zip(archs, images or [None] * len(archs), strict=True)
        ]
        asked = dict(zip(keys, archs, strict=True))
        new = {key: arch for key, arch in asked.items() if key not in self._known}
        found = evaluate_batch(
            self.net,
            list(new.values()),
            self.task,
            self.split,
            images=[n for _, n in new],
            kept=self._kept,
        )
        fresh = {key: replace(told, by=self.by) for key, told in zip(new, found, strict=True)}
        self._known |= {key: replace(result, computed=0.0) for key, result in fresh.items()}
        return [fresh.pop(key) if key in fresh else self._known[key] for key in keys]

    def _digest(self) -> tuple[str, ...]:
        """Of all that a score depends on beside the arch and the number of images."""
        task = self.task
        held = weights_digest(self.net.trainable())  # the others are frozen
        return held, task.data.digest, repr(task.preprocess), task.precision, task.device.type


@torch.inference_mode()
def latency(net: Supernet, arch: Arch, task: Task, repeats: int = 5) -> float:
    """Milliseconds of a forward of one val image: the median of `repeats`, after one to warm up."""
    net.eval()
    one = Split(task.data.val.images[:1], task.data.val.labels[:1])
    ((x, _),) = one.batches(1, task.preprocess, task.device)
    seconds = []
    with cast(net.backbone, task.precision):
        for _ in range(repeats + 1):
            began = time.perf_counter()
            with autocast(task.device, task.precision):
                net(x, arch).float().cpu()  # (1, classes); on the CPU it has been computed
            seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def scored(
    logits: Tensor, labels: Tensor, *, params: int, split: str, computed: float | None = None
) -> Result:
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
        computed=len(labels) if computed is None else computed,
    )
