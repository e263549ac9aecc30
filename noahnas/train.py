"""The only training loop: the supernet and the retrained winner use it."""

from __future__ import annotations

import io
import math
import pickle
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas.augment import augmented
from noahnas.backbone import Backbone
from noahnas.data import Split, Task
from noahnas.device import autocast
from noahnas.errors import RunError, TrainingError
from noahnas.files import own_bytes, sealed, unsealed, write_atomic
from noahnas.memory import halving, hold, ran_out
from noahnas.policy import Lesson, Plan
from noahnas.progress import Progress, Report, silent
from noahnas.ranks import ALONE, OwnDraws, Ranks
from noahnas.recipe import Stage
from noahnas.space import Arch, Space
from noahnas.supernet import Supernet

LOOK = 32  # losses between two looks at whether they are finite, for which a GPU is waited for
DAMAGED = (  # errors that a checkpoint causes which is none
    *(RuntimeError, KeyError, ValueError, AttributeError, OSError, EOFError),
    pickle.UnpicklingError,
)
PASSES_PER_TRAINING_IMAGE = 3  # forward, and a backward that counts twice
Mark = Callable[[int], float | None]  # of an epoch that has ended, counted from 0
Key = dict[str, str | int]  # what decides the weights, by which another training is told


@dataclass(frozen=True)
class TrainLog:
    """What a training cost."""

    losses: tuple[float, ...]  # mean training loss of each epoch, in nats
    passes: int  # images through the backbone, forward equivalents
    seconds: float
    lr: float  # peak learning rate on this backbone
    marks: tuple[float | None, ...] = ()  # what `mark` returned, if it was given


def build(
    backbone: Backbone,
    space: Space | Arch,
    classes: int,
    stage: Stage,
    seed: int,
    *,
    full: bool = False,
) -> Supernet:
    """A network whose new weights are drawn from `seed` alone.

    `full` thaws the backbone: all of its weights are trained, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(seed, "init"))
        net = Supernet(backbone.model, space, classes, dropout=stage.dropout)
    if full:
        net.backbone.requires_grad_(True)
    return net


def train(
    net: Supernet,
    task: Task,
    split: Split,
    stage: Stage,
    *,
    name: str,
    plan: Plan,
    seed: int,
    checkpoint: Path,
    report: Report = silent,
    mark: Mark | None = None,
    ranks: Ranks = ALONE,
) -> TrainLog:
    """Train the prompt modules and the head on a split, each step by the lessons of `plan`.

    AdamW with a linear warm-up and a cosine decay to zero, at the stage's rate for the width of the
    backbone (`Stage.on_width`). What an epoch draws depends on (seed,
    name, epoch) alone, and a checkpoint is written after each, so a training that was killed goes
    on, when called again, to the same final weights.

    Where memory runs out, a step's gradients are summed over parts of its batch, from then on; what
    dropout draws differs from an undisturbed training then.

    `mark`, if given, is called with the number of each epoch (from 0) when it ends, and what it
    returns is kept in the checkpoint and the log. It may evaluate `net`; its time is not counted.

    With several `ranks` each takes its share of every batch, gradients are summed, and all step
    alike; rank 0 alone reads and writes the checkpoint, marks and reports. Weights differ from
    those of one process by rounding, unless dropout or drop-path draw.

    Raises:
        TrainingError: if a loss is not finite, naming step and arch; the last checkpoint stays.
        OutOfMemoryError: if memory runs out with one image at a time.
        RunError: if the checkpoint is damaged or of another training.
        RanksError: if another of the `ranks` has ended.
    """
    device, stage = task.device, stage.on_width(net.width)
    hold()
    net.to(device)
    optimizer = torch.optim.AdamW(
        net.trainable().values(), lr=stage.lr, weight_decay=stage.weight_decay, fused=True
    )
    key: Key = {
        "name": name,
        "seed": seed,
        "stage": str(stage),
        "policy": plan.name,
        "data": f"{len(split)} images of {task.data.digest}",
        "precision": task.precision,
    }
    losses, marks, passes, seconds, most = _restore(checkpoint, net, optimizer, key, device, ranks)
    most = most or stage.batch_size
    steps = math.ceil(len(split) / stage.batch_size)
    for epoch in range(len(losses), stage.epochs):
        began = time.perf_counter()
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), epoch])
        order = torch.from_numpy(rng.permutation(len(split)))  # (n)
        total = torch.zeros((), device=device)
        taken: list[tuple[int, Arch, Tensor]] = []  # steps not looked at yet, and their losses
        net.train()
        batches = split.batches(stage.batch_size, task.preprocess, device, order)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            own_draws = OwnDraws(ranks, _seed(seed, f"{name} {epoch}"))
            for step, (x, y) in enumerate(batches):
                rate = learning_rate(stage, epoch + step / steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                lessons = plan(rng, epoch * steps + step, stage.epochs * steps)
                x, target = augmented(x, y, stage, len(task.data.classes))
                batch = Batch(x, target, lessons, stage.smoothing, task.precision)
                with own_draws:
                    loss, seen, parts, most = _step(net, optimizer, batch, most, ranks)
                total += len(y) * loss
                passes += PASSES_PER_TRAINING_IMAGE * seen
                taken += [(step, arch, part) for arch, part in parts]
                if len(taken) >= LOOK or step == steps - 1:
                    _check_finite(taken, name, stage, epoch, steps, checkpoint)
                    taken = []
        losses.append(total.item() / len(split))
        seconds += time.perf_counter() - began
        if not ranks.leads:
            continue
        if mark:
            marks.append(mark(epoch))
        _save(checkpoint, net, optimizer, key, losses, marks, passes, seconds, most)
        report(Progress(name, epoch + 1, stage.epochs, f"loss {losses[-1]:.3f}"))
    return TrainLog(tuple(losses), passes, seconds, stage.lr, tuple(marks))


@dataclass(frozen=True)
class Batch:
    """What a step learns from."""

    x: Tensor  # (B, 3, H, W), normalised
    target: Tensor  # (B), or (B, classes)
    lessons: Sequence[Lesson]
    smoothing: float = 0.0  # of labels
    precision: str = "fp32"


def _step(
    net: Supernet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    most: int | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, int, list[tuple[Arch, Tensor]], int]:
    """One step by the mean loss of its lessons, `most` images at a time, halved if memory runs out.

    Returns:
        As `_gradients`, and the number of images at a time that memory was enough for.
    """
    work = partial(_summed, net, optimizer, batch, ranks)
    found, most = halving(work, most or len(batch.x), "a training step")
    optimizer.step()
    return *found, most


def _summed(
    net: Supernet, optimizer: torch.optim.Optimizer, batch: Batch, ranks: Ranks, most: int
) -> tuple[Tensor, int, list[tuple[Arch, Tensor]]]:
    """The gradients of a step, each rank's share summed over all; as `_gradients` else.

    All learn whether memory ran out on any, so that all try again with fewer images at a time.
    """
    if ranks.size == 1:
        return _gradients(net, optimizer, batch, most)
    weights = list(net.trainable().values())
    found, said = None, ""
    try:
        found = _gradients(net, optimizer, batch, most, ranks)
    except (MemoryError, RuntimeError) as e:
        if not ran_out(e):
            raise
        said = str(e)
    short, *used = ranks.any_of([found is None, *(w.grad is not None for w in weights)])
    if short or found is None:
        raise MemoryError(said or "on another device")
    ranks.sum_gradients(weights, used)
    total, seen, parts = found
    losses = ranks.sum(torch.stack([total, *(own for _, own in parts)]))  # (1 + lessons)
    return losses[0], seen, [(arch, own) for (arch, _), own in zip(parts, losses[1:], strict=True)]


def _gradients(
    net: Supernet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    most: int,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, int, list[tuple[Arch, Tensor]]]:
    """The gradients of a step's mean loss over its lessons, `most` images at a time.

    Of several ranks, this one's share of gradients and losses, which add up to the whole.

    Returns:
        That loss, how many images were seen, and each lesson's arch with its own loss.
    """
    x, target, lessons = batch.x, batch.target, batch.lessons
    optimizer.zero_grad(set_to_none=True)
    total, seen = torch.zeros((), device=x.device), 0
    parts: list[tuple[Arch, Tensor]] = []
    taught: Tensor | None = None  # (b, classes), the first lesson's outputs as probabilities
    images = sum(len(x[lesson.group :: lesson.groups]) for lesson in lessons)
    for lesson in lessons:
        part = slice(lesson.group, None, lesson.groups)
        whole = len(x[part])  # images of this lesson, on all ranks
        if not whole:
            continue
        # Groups are dealt to ranks one behind the other, so that shares differ by one image.
        mine = ranks.part(seen if lesson.groups > 1 else 0)
        inputs, wanted = x[part][mine], target[part][mine]  # (b, 3, H, W), (b) or (b, classes)
        own, outputs = torch.zeros((), device=x.device), []
        for start in range(0, len(inputs), most):
            few = slice(start, start + most)
            with autocast(x.device, batch.precision):
                logits = net(inputs[few], lesson.arch)  # (m, classes)
                if lesson.distilled and taught is not None:
                    loss = F.cross_entropy(logits, taught[few])  # ()
                else:
                    smooth = batch.smoothing
                    loss = F.cross_entropy(logits, wanted[few], label_smoothing=smooth)  # ()
            share = loss * (len(logits) / images)
            share.backward()
            total += share.detach()
            own += loss.detach() * (len(logits) / whole)
            outputs.append(logits.detach())
        if outputs and taught is None and lesson.groups == 1 and len(lessons) > 1:
            taught = torch.cat(outputs).float().softmax(dim=1)  # (b, classes)
        parts.append((lesson.arch, own))
        seen += whole
    return total, seen, parts


def _check_finite(
    taken: Sequence[tuple[int, Arch, Tensor]],
    name: str,
    stage: Stage,
    epoch: int,
    steps: int,
    checkpoint: Path,
) -> None:
    """Raise TrainingError if a loss is not finite, naming the step and the arch."""
    values = torch.stack([loss for _, _, loss in taken]).tolist()  # waits for the device once
    for (step, arch, _), value in zip(taken, values, strict=True):
        if not math.isfinite(value):
            kept = f"; the weights of epoch {epoch} are in {checkpoint}" if epoch else ""
            raise TrainingError(
                f"{name}: at step {step + 1} of {steps} of epoch {epoch + 1} the loss of {arch!r} "
                f"is {value}; start a new run with a lower learning rate than {stage.lr:g} on this "
                f"backbone{kept}"
            )


def learning_rate(stage: Stage, epoch: float) -> float:
    """The rate at a (fractional) epoch: linear from 0 to `lr`, then half a cosine down to 0."""
    if epoch < stage.warmup_epochs:
        return stage.lr * epoch / stage.warmup_epochs
    past = (epoch - stage.warmup_epochs) / max(stage.epochs - stage.warmup_epochs, 1)
    return stage.lr * 0.5 * (1 + math.cos(math.pi * min(past, 1.0)))


def _seed(seed: int, what: str) -> int:
    """A torch seed from ours and a word."""
    state = np.random.SeedSequence([seed, zlib.crc32(what.encode())]).generate_state(2)
    return int(state[0]) << 31 | int(state[1]) >> 1


def _save(
    path: Path,
    net: Supernet,
    optimizer: torch.optim.Optimizer,
    key: Key,
    losses: list[float],
    marks: list[float | None],
    passes: int,
    seconds: float,
    most: int,
) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "key": key,
            "weights": {k: v.detach() for k, v in net.trainable().items()},
            "optimizer": optimizer.state_dict(),
            "losses": losses,
            "marks": marks,
            "passes": passes,
            "seconds": seconds,
            "most": most,
        },
        buffer,
    )
    write_atomic(path, sealed(buffer.getvalue()))


def _restore(
    path: Path,
    net: Supernet,
    optimizer: torch.optim.Optimizer,
    key: Key,
    device: torch.device,
    ranks: Ranks,
) -> tuple[list[float], list[float | None], int, float, int]:
    try:
        kept = ranks.share(own_bytes(path) if ranks.leads and path.exists() else None)
        if kept is None:
            return [], [], 0, 0.0, 0
        content = io.BytesIO(unsealed(kept))
        saved: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
        then: Key = saved["key"]
        differ = [f"{k}: {then.get(k)}, not {v}" for k, v in key.items() if then.get(k) != v]
        if differ:
            raise RunError(f"{path} belongs to another training ({'; '.join(differ)})")
        net.load_state_dict(saved["weights"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
    except DAMAGED as e:
        raise RunError(f"{path} is damaged ({e}); remove it to train anew") from e
    found = list(saved["losses"]), list(saved["marks"])
    return *found, int(saved["passes"]), float(saved["seconds"]), int(saved["most"])
