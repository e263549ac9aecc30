"""Blocks computed once for architectures that begin alike, over a search on real scores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo import CPU, supernet_of
from ratios import pair, ratio, show

from noahnas import Arch
from noahnas.evaluate import Result, evaluate_batch
from noahnas.prefixes import Kept, tree
from noahnas.search import search
from noahnas.strategy import Proposal, make_strategy
from noahnas.study import Study

GENERATIONS, EACH = 15, 50  # as evolution's own population


def prefix(work: Path, batch: int) -> dict[str, Any]:
    """A search of 15 generations: seconds per arch of an ask over the plain forward's.

    What the search does is timed where it does it, so that what is kept for later asks is what a
    search keeps. Each ask is a pair with a plain forward of the same images, before or after it.
    """
    net, space, task = supernet_of(work)
    images = len(task.data.val)
    ((x, _),) = task.data.val.batches(images, task.preprocess, CPU)

    @torch.inference_mode()
    def plain() -> Any:
        return net.backbone(x)

    def asked(kept: Kept, found: list[tuple[float, float]], computed: list[float]) -> Any:
        def score(archs: Sequence[Arch]) -> list[Result]:
            results: list[Result] = []

            def ours() -> None:
                results.extend(evaluate_batch(net, archs, task, kept=kept))

            own, other = pair(ours, plain, len(found))
            found.append((own / len(archs), other))
            computed.append(sum(r.computed for r in results) / sum(r.passes for r in results))
            return results

        return score

    plain()
    told: dict[str, Any] = {"batch": batch, "space": "demo", "images": images, "computed": {}}
    first = EACH // batch  # asks of generation 0
    pairs: list[tuple[float, float]] = []
    computed: list[float] = []
    score: Callable[[Sequence[Arch]], list[Result]] = asked(Kept(), pairs, computed)

    def scored(proposals: Sequence[Proposal]) -> list[Result]:
        return score([p.arch for p in proposals])

    strategy = make_strategy("evolution", space, 0)
    with tempfile.TemporaryDirectory() as place:
        study = Study.journal(Path(place) / "study", space)
        search(strategy, scored, study, trials=GENERATIONS * EACH, batch=batch)
    told["evolution"] = ratio(pairs[first:], 0.85, np.mean)
    told["computed"]["evolution"] = float(np.mean(computed[first:]))
    told["computed"]["first generation"] = float(np.mean(computed[:first]))
    show("prefix evolution", told["evolution"])
    rng = np.random.default_rng(0)
    pairs, computed = [], []
    score = asked(Kept(), pairs, computed)
    alone: list[float] = []  # what an ask has in common, were nothing kept
    for _ in range(35):
        draws = [space.sample(rng, prior="paper")[0] for _ in range(batch)]
        alone.append(sum(tree(net, draws).shares(net.blocks).values()) / batch)
        score(draws)
    told["random"] = ratio(pairs[5:], None, np.mean)
    told["computed"]["random"] = float(np.mean(computed[5:]))
    told["computed"]["random, within an ask"] = float(np.mean(alone[5:]))
    show("prefix random", told["random"])
    return told
