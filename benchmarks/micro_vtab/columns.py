"""Columns that several sections of docs/claims.md have in common."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from noahnas.protocols.answers import MARGIN, Scores, beyond, keeps, points


def by_task(accuracies: Mapping[str, float]) -> Scores:
    """Accuracies by name of run, TASK/ROW/seed-N, as answers take them: by task and seed."""
    found: dict[str, dict[int, float]] = {}
    for name, accuracy in accuracies.items():
        task, _, seed = name.split("/")
        found.setdefault(task, {})[int(seed.removeprefix("seed-"))] = accuracy
    return found


def means(scores: Scores) -> str:
    """Accuracy in % on each task and their mean."""
    found = [100 * statistics.fmean(seeds.values()) for seeds in scores.values()]
    return " | ".join(f"{mean:.1f}" for mean in (*found, statistics.fmean(found)))


def held(found: Mapping[str, Any]) -> str:
    """A difference from a dearer recipe, its interval over tasks, and whether accuracy is kept."""
    low, high = found["over_tasks"]["low"], found["over_tasks"]["high"]
    kept = "yes" if beyond(found)[0] > -MARGIN else "on these tasks"
    told = kept if keeps(found) else "not shown"
    return f"{points(found['difference'])} | [{100 * low:+.1f}, {100 * high:+.1f}] | {told}"
