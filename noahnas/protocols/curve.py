"""Accuracy against passes: NOAH under several recipes, on tasks and seeds that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from noahnas.compare.statistics import interval
from noahnas.protocols.answers import (
    HERE,
    MARGIN,
    Scores,
    beyond,
    compared,
    keeps,
    points,
    whole,
)

CURVE = "noah"  # the row whose recipes make the curve
CHARGED = ("supernet", "search", "epochs", "retrain")  # stages of a run that its row is charged


def curve(
    scores: Mapping[str, Scores],
    costs: Mapping[str, Mapping[str, Mapping[str, float]]],
    titles: Mapping[str, str],
) -> dict[str, Any] | None:
    """Points of the recipes, and of the other rows that were run on the same tasks and seeds.

    Recipes are held against the dearest, and against the table's own, each on all the pairs that
    both have, as far as these make a `whole` table. Points are on the pairs of the dearest, so a
    recipe that lacks some of them has none; unless all others do: then they are on what it shares
    with the one that has the most of them.

    Args:
        scores: by row.
        costs: by row and stage, the mean of a run.
        titles: of rows.

    Returns:
        None unless another recipe has a task and seed in common with the dearest.
    """
    recipes = [name for name in scores if name.partition("@")[0] == CURVE]
    spent = {name: sum(costs[name][stage]["passes"] for stage in CHARGED) for name in scores}
    if len(recipes) < 2:
        return None
    reference = max(recipes, key=lambda name: spent[name])
    shared = (whole(_common(scores, [reference, name])) for name in recipes if name != reference)
    common = max(shared, key=lambda pairs: sum(map(len, pairs.values())))
    if not common:
        return None
    points = {}
    for name in sorted(scores, key=lambda name: spent[name]):
        if _within(common, scores[name]):
            points[name] = {
                "title": titles[name],
                "recipe": name in recipes,
                "passes": spent[name],
                "share": spent[name] / spent[reference],
                "rates": costs[name]["rates"]["passes"],
                "accuracy": interval(_values(scores[name], common)).to_dict(),
            }
    cheaper = [
        (name, dear)
        for dear in dict.fromkeys((reference, CURVE))
        for name in recipes
        if spent[name] < spent.get(dear, 0)
    ]
    held = []
    for found in compared(scores, cheaper, titles):
        found |= {
            "share": spent[found["row"]] / spent[found["against"]],
            "keeps": keeps(found),
            "keeps_beyond": beyond(found)[0] > -MARGIN,
        }
        held.append(found | {"sentence": _sentence(found, titles)})
    return {
        "reference": reference,
        "left_out": [titles[name] for name in scores if name not in points],
        "tasks": list(common),
        "seeds": sorted({seed for seeds in common.values() for seed in seeds}),
        "points": points,
        "held": held,
    }


def _common(scores: Mapping[str, Scores], names: list[str]) -> dict[str, list[int]]:
    """Seeds of each task that all rows have."""
    found = {}
    for task in scores[names[0]]:
        seeds = set.intersection(*(set(scores[name].get(task, {})) for name in names))
        if seeds:
            found[task] = sorted(seeds)
    return found


def _within(common: Mapping[str, list[int]], scores: Scores) -> bool:
    """Whether a row has all of these seeds."""
    return all(set(seeds) <= set(scores.get(task, {})) for task, seeds in common.items())


def _values(scores: Scores, common: Mapping[str, list[int]]) -> Any:
    """(tasks, seeds)."""
    return np.array([[scores[task][seed] for seed in seeds] for task, seeds in common.items()])


def _sentence(found: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    row, other = titles[found["row"]], titles[found["against"]]
    told = points(found["difference"])
    limits = f"(loses less than {100 * MARGIN:.1f} points)"
    said = {
        True: f"keeps the accuracy of {other} {limits}{'' if found['keeps_beyond'] else HERE}",
        False: f"is not shown to keep the accuracy of {other}",
        None: f"cannot be held against {other}: one pair",
    }[found["keeps"]]
    return (
        f"{row}, at {found['share']:.1%} of the passes, {said}: {told} over {found['pairs']} pairs."
    )
