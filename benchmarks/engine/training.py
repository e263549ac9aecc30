"""A training step on an architecture beside one of the plain backbone with LoRA on qkv."""

from __future__ import annotations

from typing import Any

import torch
from models import CLASSES, MODELS, Work, archs_of, model_of, size_of
from ratios import pairs, ratio, show
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas import Space, Supernet
from noahnas.device import autocast
from noahnas.memory import hold
from noahnas.policy import Lesson
from noahnas.train import Batch, _step

RANK = 8
LIMITS = {"largest": 1.08, "median": 1.02}


class PlainLoRA(nn.Module):
    """LoRA of one pair of matrices on a layer, as plainly as it can be written."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, 3D)."""
        out: Tensor = self.layer(x) + self.up(self.down(x))  # (B, N, 3D)
        return out


def plain_step(
    name: str, x: Tensor, y: Tensor, precision: str = "fp32", *, compiled: bool = False
) -> Work:
    """A training step of the frozen backbone with LoRA on every qkv, and its head."""
    model = model_of(name)
    model.requires_grad_(False)
    model.reset_classifier(CLASSES)
    for block in model.blocks:
        block.attn.qkv = PlainLoRA(block.attn.qkv)
    model.to(x.device).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, fused=True)  # as `train` does
    forward: Any = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(x.device, precision):
            loss = F.cross_entropy(forward(x), y)  # ()
        loss.backward()
        optimizer.step()

    return step


def our_step(name: str, told: str, x: Tensor, y: Tensor) -> Work:
    """A step of the training loop on an arch of noah-vtab."""
    model = model_of(name)
    space = Space.load("noah-vtab").bind(model)
    arch = archs_of(space)[told]
    net = Supernet(model, space, CLASSES).train()
    optimizer = torch.optim.AdamW(net.trainable().values(), lr=1e-3, fused=True)  # as `train` does
    return lambda: _step(net, optimizer, Batch(x, y, [Lesson(arch)]))


def training(name: str, count: int) -> dict[str, Any]:
    """A training step against the plain one."""
    hold()  # as `train` does; plain steps gain by it, too
    size = size_of(model_of(name))
    x, y = torch.randn(MODELS[name], 3, size, size), torch.arange(MODELS[name]) % CLASSES
    plain = plain_step(name, x, y)
    found: dict[str, Any] = {"images": len(x), "dtype": "fp32"}
    for told in ("median", "largest"):
        found[told] = ratio(pairs(our_step(name, told, x, y), plain, count), LIMITS[told])
        show(f"train {name} {told}", found[told])
    return found
