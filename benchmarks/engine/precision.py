"""bf16 against fp32: speed, and whether they rank architectures alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo import CPU, supernet_of
from ratios import ratio, show
from scipy.stats import kendalltau

from noahnas.evaluate import Result, evaluate_batch


def precision(work: Path, device: torch.device = CPU, archs: int = 50) -> dict[str, Any]:
    """Whether bf16 is faster on a device and ranks architectures as fp32 does."""
    net, space, task = supernet_of(work, device)
    clock = time.process_time if device == CPU else time.perf_counter  # results lie on the CPU
    drawn = space.sample(np.random.default_rng(1), archs, prior="paper")
    reduced = replace(task, precision="bf16")
    results: dict[str, list[Result]] = {"fp32": [], "bf16": []}
    times = []
    for arch in drawn:
        seconds = {}
        for told, fed in (("fp32", task), ("bf16", reduced)):
            began = clock()
            results[told].append(evaluate_batch(net, [arch], fed)[0])
            seconds[told] = clock() - began
        times.append((seconds["bf16"], seconds["fp32"]))
    about = ratio(times)
    found: dict[str, Any] = {"archs": archs, "limit": 0.95, "bf16_over_fp32": about}
    found["tau_loss"] = _tau(*([r.loss for r in some] for some in results.values()))
    found["tau_rank"] = _tau(*(_places(some) for some in results.values()))
    found["tau_accuracy"] = _tau(*([r.accuracy for r in some] for some in results.values()))
    taus = [found[key]["tau"] for key in ("tau_loss", "tau_rank")]
    found["met"] = min(taus) >= 0.95 and about["upper95"] < 1
    gaps = [abs(a.loss - b.loss) for a, b in zip(*results.values(), strict=True)]
    found["largest_difference_of_losses"] = max(gaps)
    for key in ("tau_loss", "tau_rank", "tau_accuracy"):
        print(
            f"{key}: {found[key]['tau']:.3f} ({found[key]['low']:.3f} to {found[key]['high']:.3f})"
        )
    show("precision bf16/fp32", about)
    return found


def _places(results: Sequence[Result]) -> list[int]:
    """Each one's place when they are sorted as a search sorts them."""
    order = sorted(range(len(results)), key=lambda i: results[i].rank)
    return [order.index(i) for i in range(len(results))]


def _tau(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Kendall's tau with a bootstrap interval over architectures."""
    x, y, rng = np.array(a), np.array(b), np.random.default_rng(0)
    drawn = rng.integers(0, len(x), (1000, len(x)))
    low, high = np.quantile([kendalltau(x[i], y[i]).statistic for i in drawn], [0.025, 0.975])
    return {"tau": float(kendalltau(x, y).statistic), "low": float(low), "high": float(high)}
