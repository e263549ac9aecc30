"""What the runs of a table allow to say: paired differences, their intervals, and sentences.

A pair is a task and a seed that both rows have. Tasks are the unit that one wants to speak beyond,
and seeds are independent once a task is given: so intervals resample tasks, then seeds within each,
and tests flip the signs of pairs for what holds on these tasks, of whole tasks for what holds
beyond them (`noahnas.compare.statistics`). Resampling few tasks gives intervals that are too
narrow, so something is said to hold beyond these tasks only if the interval of Student's t over the
tasks' means, which is far wider for few, says so as well.
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
HERE = " on these tasks; whether on others, too, cannot be told"


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of a mean of a few independent values, by Student's t; None for one.

    A bootstrap of three values would be far too narrow.
    """
    if len(values) < 2:
        return None
    quantile = float(student.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def whole(seeds: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """As many pairs of a task and a seed as fit one table of tasks × seeds, of those given.

    Tasks that have fewer seeds than others are left out, or seeds of those that have more,
    whichever leaves more pairs, and of equals more tasks.
    """
    counts = sorted({len(found) for found in seeds.values()} - {0})
    if not counts:
        return {}
    most = max(counts, key=lambda n: n * sum(len(found) >= n for found in seeds.values()))
    return {task: sorted(found)[:most] for task, found in seeds.items() if len(found) >= most}


def rectangle(first: Scores, second: Scores) -> tuple[Array, list[str]]:
    """Paired differences first − second, as many as make a `whole` table.

    Returns:
        (tasks, pairs), and the tasks' names. Empty if there is no pair.
    """
    pairs = whole({task: sorted(set(first[task]) & set(second.get(task, {}))) for task in first})
    values = [[first[task][s] - second[task][s] for s in seeds] for task, seeds in pairs.items()]
    return (np.array(values) if values else np.zeros((0, 0))), list(pairs)


def differences(
    scores: Mapping[str, Scores], row: str, others: Sequence[str], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row against others at once, as `compared` does."""
    return compared(scores, [(row, other) for other in others], titles)


def compared(
    scores: Mapping[str, Scores], asked: Sequence[tuple[str, str]], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows against others, with p values corrected over all that is asked (Holm).

    What has no common pair of task and seed is left out.
    """
    found: list[dict[str, Any]] = []
    for row, other in asked:
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
                    **_by_tasks(values),
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


def _by_tasks(values: Array) -> dict[str, float | None]:
    """The interval of the mean of differences (tasks, pairs) by Student's t over tasks."""
    mean, half = float(values.mean()), half_width(values.mean(axis=1).tolist())
    return {
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
    }


def beyond(found: Mapping[str, Any]) -> tuple[float, float]:
    """Between what a difference lies on other tasks, too: the wider of both intervals' ends."""
    ends = [(each["low"], each["high"]) for each in (found["difference"], found["over_tasks"])]
    if any(low is None for low, _ in ends):
        return -math.inf, math.inf
    return min(low for low, _ in ends), max(high for _, high in ends)


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
    low, high = beyond(found)
    if found["answer"] == "beats":
        return f"{row} beats {other}" + ("" if low > 0 else HERE)
    if found["verdict"] == "worse":
        return f"{row} does not beat {other}: it is worse" + ("" if high < 0 else HERE)
    if found["answer"] == "does not beat":
        told = f"{row} does not beat {other}: a gain of a point is ruled out"
        return told + ("" if high < MARGIN else HERE)
    return f"Whether {row} beats {other} cannot be told ({found['verdict']})"


def keeps(found: Mapping[str, Any]) -> bool | None:
    """Whether a row loses less than MARGIN against another, by the interval's lower bound.

    None where a single pair leaves no interval.
    """
    low = found["difference"]["low"]
    return None if low is None else bool(low > -MARGIN)
