"""Blocks computed once for the architectures of an ask, over a search on real scores."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo import CPU, supernet_of
from ratios import pairs, ratio, show

from noahnas import Arch
from noahnas.evaluate import CHUNK, evaluate_batch
from noahnas.prefixes import Node, deep, tree
from noahnas.search import search
from noahnas.strategy import Proposal, make_strategy
from noahnas.study import Study


def prefix(work: Path, count: int, batch: int) -> dict[str, Any]:
    """An evolution of 15 generations on real scores: seconds per arch over the plain forward's."""
    net, space, task = supernet_of(work)
    images = len(task.data.val)
    asks: list[list[Arch]] = []
    shared: list[float] = []

    def score(proposals: Sequence[Proposal]) -> Any:
        archs = [p.arch for p in proposals]
        found = evaluate_batch(net, archs, task)
        asks.append(archs)
        shared.append(sum(r.computed for r in found) / sum(r.passes for r in found))
        return found

    strategy = make_strategy("evolution", space, 0)
    with tempfile.TemporaryDirectory() as place:
        study = Study.journal(Path(place) / "study", space)
        search(strategy, score, study, trials=750, batch=batch)
    later = shared[50 // batch :]  # generations 1 to 14
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"batch": batch, "space": "demo", "images": images}
    found["computed"] = {"evolution": float(np.mean(later)), "first": shared[0]}
    draws = [space.sample(rng, batch, prior="paper") for _ in range(10)]
    found["computed"]["random"] = float(
        np.mean([sum(tree(net, d).shares(net.blocks).values()) / batch for d in draws])
    )
    ((x, _),) = task.data.val.batches(images, task.preprocess, CPU)
    parts = x.split(CHUNK // net.shape.tokens)
    with torch.inference_mode():
        for told, groups in (("evolution", asks[50 // batch :]), ("random", draws)):
            work_of = []
            for number in rng.permutation(len(groups))[:count]:
                root = tree(net, groups[number])

                def ours(root: Node = root) -> Any:
                    return dict(deep(net, parts, root))

                one = pairs(ours, lambda: net.backbone(x), 1)
                work_of.append((one[0][0] / len(root.archs), one[0][1]))
            found[told] = ratio(work_of, 0.85 if told == "evolution" else None)
            show(f"prefix {told}", found[told])
    return found
