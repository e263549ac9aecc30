"""The linear probe: what the frozen backbone gives with a classifier alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas.backbone import Backbone
from noahnas.data import Split, Task
from noahnas.device import autocast
from noahnas.evaluate import Result, scored

PENALTIES = tuple(10.0**power for power in range(-5, 2))  # of the squared weights, in nats
BATCH = 256  # images


@dataclass(frozen=True)
class Probe:
    """What the probe scored on test, and what it cost."""

    result: Result
    penalty: float  # chosen on val
    passes: int  # images through the backbone, test apart
    seconds: float


def linear_probe(backbone: Backbone, task: Task) -> Probe:
    """Multinomial logistic regression on what the backbone pools, tested once.

    Features are computed once, an image a pass, and standardised. The squared-weight penalty is
    the best of seven on val, with train; then both are fitted together. The problem is convex and
    solved by L-BFGS, so there is nothing to seed.
    """
    began = time.perf_counter()
    data, classes = task.data, len(task.data.classes)
    features = {s: _features(backbone, task, data.split(s)) for s in ("train", "val", "test")}
    mean, std = features["train"].mean(dim=0), features["train"].std(dim=0).clamp_min(1e-6)  # (D)
    x = {split: (value - mean) / std for split, value in features.items()}  # (n, D)
    losses = {
        penalty: _loss(_fit(x["train"], data.train.labels, classes, penalty), x["val"], data.val)
        for penalty in PENALTIES
    }
    penalty = min(losses, key=lambda p: losses[p])
    both = torch.cat([x["train"], x["val"]])  # (n, D)
    weights = _fit(both, torch.cat([data.train.labels, data.val.labels]), classes, penalty)
    result = scored(_logits(weights, x["test"]), data.test.labels, params=0, split="test")
    passes = len(data.train) + len(data.val)
    return Probe(result, penalty, passes, time.perf_counter() - began)


@torch.inference_mode()
def _features(backbone: Backbone, task: Task, split: Split) -> Tensor:
    """(n, D), double precision: what the backbone's own classifier would read."""
    vit: Any = backbone.model.eval().to(task.device)
    found = []
    for images, _ in split.batches(BATCH, task.preprocess, task.device):
        with autocast(task.device, task.precision):
            tokens = vit.forward_features(images)  # (b, N, D)
            found.append(vit.forward_head(tokens, pre_logits=True).double().cpu())  # (b, D)
    return torch.cat(found)


def _fit(x: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """Weights and bias (D + 1, classes) of the least penalised cross-entropy."""
    x = x.clone()  # made in inference mode; autograd may not keep it
    weights = torch.zeros(x.shape[1] + 1, classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(weights, x), labels)
        loss = loss + penalty / 2 * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def _logits(weights: Tensor, x: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]  # (n, D) -> (n, classes)


def _loss(weights: Tensor, x: Tensor, split: Split) -> float:
    return F.cross_entropy(_logits(weights, x), split.labels).item()
