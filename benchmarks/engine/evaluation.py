"""Evaluating an architecture beside timm's own forward of the backbone on the same batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from models import CLASSES, SPLITS, archs_of, model_of, size_of
from ratios import pairs, ratio, show

from noahnas import Arch, Space, Supernet
from noahnas.evaluate import CHUNK
from noahnas.memory import hold
from noahnas.prefixes import Node, deep, tree

LIMITS = {"largest": 1.09, "median": 1.05}


def evaluation(name: str, count: int) -> dict[str, Any]:
    """Evaluating archs against timm's own forward; beside it, what more tokens alone would cost.

    Both get the same batch. timm's forward takes it at once, `evaluate` in the parts that suit a
    CPU's caches; what is left of the ratio if timm's forward is given the same parts stands beside.
    For the shipped ViT both are timed again in a process that keeps freed memory, as one does that
    has trained: timm's forward, which takes all at once, gains more by that.
    """
    model = model_of(name)
    space = Space.load("noah-vtab").bind(model)
    net = Supernet(model, space, CLASSES).eval()
    x = torch.randn(SPLITS[name], 3, size_of(model), size_of(model))
    parts = x.split(CHUNK // net.shape.tokens)
    found: dict[str, Any] = {"images": len(x), "tokens": net.shape.tokens, "dtype": "fp32"}
    with torch.inference_mode():
        for told, arch in archs_of(space).items():
            root = tree(net, [arch])

            def ours(root: Node = root) -> Any:
                return dict(deep(net, parts, root))

            work = pairs(ours, lambda: model(x), count)
            alike = pairs(ours, lambda: [model(part) for part in parts], count)
            tokens = np.mean([net.shape.tokens + p for p in _prompts(arch)]) / net.shape.tokens
            found[told] = ratio(work, LIMITS[told]) | {
                "tokens_alone": float(tokens),
                "in_equal_parts": ratio(alike),
            }
            show(f"eval {name} {told}", found[told])
            show(f"eval {name} {told}, equal parts", found[told]["in_equal_parts"])
        if name == "vit-nano":
            hold()
            for told, arch in archs_of(space).items():
                root = tree(net, [arch])
                work = pairs(
                    lambda root=root: dict(deep(net, parts, root)), lambda: model(x), count
                )
                found[told]["memory_kept"] = ratio(work)
                show(f"eval {name} {told}, memory kept", found[told]["memory_kept"])
    return found


def _prompts(arch: Arch) -> list[int]:
    """Prompt tokens in each block; they flow on into blocks without any."""
    found, last = [], 0
    for p in arch.dims("vpt"):
        last = p or last
        found.append(last)
    return found
