"""What the runs of a table allow to say: paired differences, their intervals, and sentences.

A pair is a task and a seed that both rows have. Tasks are the unit that one wants to speak beyond,
and seeds are independent once a task is given: so intervals resample tasks, then seeds within each,
and tests flip the signs of pairs for what holds on these tasks, of whole tasks for what holds
beyond them (`noahnas.compare.statistics`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from noahnas.compare.statistics import (
    LEVEL,
    Array,
    holm,
    interval,
    sign_flip,
    smallest_p,
    verdict,
)

Scores = Mapping[str, Mapping[int, float]]  # task → seed → accuracy on test, in [0, 1]

STEP = 1e-4  # of accuracy, in which sign-flip tests count: tasks have different numbers of images
MARGIN = 0.01  # of accuracy: a loss, or a gain, that would matter


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of a mean of a few independent values, by Student's t; None for one.

    A bootstrap of three values would be far too narrow.
    """
    if len(values) < 2:
        return None
    quantile = float(student.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def rectangle(first: Scores, second: Scores) -> tuple[Array, list[str]]:
    """Paired differences first − second, as many as fit one table of tasks × seeds.

    Tasks that have fewer pairs than others are left out, or pairs of those that have more,
    whichever leaves more pairs; what is left out is missing in the list of tasks.

    Returns:
        (tasks, pairs), and the tasks' names. Empty if there is no pair.
    """
    pairs = {
        task: [first[task][seed] - second[task][seed] for seed in seeds]
        for task in first
        if (seeds := sorted(set(first[task]) & set(second.get(task, {}))))
    }
    if not pairs:
        return np.zeros((0, 0)), []
    counts = sorted({len(found) for found in pairs.values()}, reverse=True)
    most = max(counts, key=lambda n: n * sum(len(found) >= n for found in pairs.values()))
    tasks = [task for task, found in pairs.items() if len(found) >= most]
    return np.array([pairs[task][:most] for task in tasks]), tasks


def differences(
    scores: Mapping[str, Scores], row: str, others: Sequence[str], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row against others at once, with p values corrected over them (Holm).

    Others without a common pair are left out.
    """
    found: list[dict[str, Any]] = []
    for other in others:
        values, tasks = rectangle(scores.get(row, {}), scores.get(other, {}))
        if not values.size:
            continue
        steps = np.round(values / STEP).astype(int)  # (T, n)
        found.append(
            {
                "row": row,
                "against": other,
                "tasks": tasks,
                "seeds": values.shape[1],
                "pairs": values.size,
                "won": int((steps > 0).sum()),
                "unequal": int((steps != 0).sum()),
                "difference": interval(values).to_dict(),
                "p": sign_flip(steps.ravel().tolist()),
                "smallest_p": smallest_p(values.size),
                "over_tasks": {
                    "p": sign_flip(steps.sum(axis=1).tolist()),
                    "smallest_p": smallest_p(len(tasks)),
                },
            }
        )
    corrected = holm([each["p"] for each in found])
    for each, p in zip(found, corrected, strict=True):
        mean = each["difference"]["mean"]
        each["p_corrected"] = p
        each["verdict"] = verdict(mean, p, each["pairs"], each["unequal"], len(found))
        each["answer"] = answer(each)
        each["sentence"] = sentence(each, titles)
    return found


def answer(found: Mapping[str, Any]) -> str:
    """beats, does not beat, or cannot be told."""
    low, high = found["difference"]["low"], found["difference"]["high"]
    if found["verdict"] == "better":
        return "beats"
    if found["verdict"] == "worse":
        return "does not beat"
    shown = found["verdict"] == "a difference is not shown"
    if shown and low is not None and high < MARGIN:
        return "does not beat"
    return "cannot be told"


def points(difference: Mapping[str, Any]) -> str:
    """A difference of accuracies with its interval, if it has one."""
    mean, low, high = (difference[key] for key in ("mean", "low", "high"))
    told = f"{100 * mean:+.1f} points"
    return told if low is None else f"{told} [{100 * low:+.1f}, {100 * high:+.1f}]"


def sentence(found: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """An answer with its numbers."""
    row, other = titles[found["row"]], titles[found["against"]]
    told = points(found["difference"])
    count = len(found["tasks"])
    over = f"{count} task{'s' * (count != 1)} × {found['seeds']} seed{'s' * (found['seeds'] != 1)}"
    told += (
        f" over {over}; higher in {found['won']} of {found['pairs']} pairs, "
        f"p = {found['p_corrected']:.3g}"
    )
    return f"{_said(found, row, other)}: {told}."


def _said(found: Mapping[str, Any], row: str, other: str) -> str:
    low, high = found["difference"]["low"], found["difference"]["high"]
    if found["answer"] == "beats":
        beyond = low is not None and low > 0 and len(found["tasks"]) > 1
        return f"{row} beats {other}" + (
            "" if beyond else " on these tasks; whether on others, too, cannot be told"
        )
    if found["verdict"] == "worse":
        beyond = high is not None and high < 0 and len(found["tasks"]) > 1
        return f"{row} does not beat {other}: it is worse" + ("" if beyond else " on these tasks")
    if found["answer"] == "does not beat":
        return f"{row} does not beat {other}: a gain of a point is ruled out"
    return f"Whether {row} beats {other} cannot be told ({found['verdict']})"


def keeps(found: Mapping[str, Any]) -> bool | None:
    """Whether a row loses less than MARGIN against another, by the interval's lower bound.

    None where a single pair leaves no interval.
    """
    low = found["difference"]["low"]
    return None if low is None else bool(low > -MARGIN)
