"""What a table of micro-VTAB allows to say: paired differences, answers, and the curve."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from noahnas.protocols.answers import (
    beyond,
    compared,
    differences,
    half_width,
    keeps,
    rectangle,
    whole,
)
from noahnas.protocols.cells import Settings
from noahnas.protocols.curve import curve
from noahnas.protocols.micro import Asked
from noahnas.protocols.micro_table import alike, retrained
from noahnas.recipe import Recipe
from noahnas.space import Space


def scores(values: Any) -> dict[str, dict[int, float]]:
    """Tasks × seeds as a row's scores."""
    return {f"t{i}": dict(enumerate(row)) for i, row in enumerate(np.asarray(values).tolist())}


TITLES = {"noah": "NOAH", "lora": "LoRA", "vpt": "VPT"}


def told(
    shift: float, noise: float, tasks: int = 10, seeds: int = 3, apart: float = 0.0
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.8, (tasks, 1)) + np.zeros((tasks, seeds))
    own = base + shift + noise * rng.standard_normal((tasks, seeds))
    own += apart * np.linspace(-1, 1, tasks)[:, None]
    (found,) = differences({"noah": scores(own), "lora": scores(base)}, "noah", ["lora"], TITLES)
    return found


@pytest.mark.parametrize(
    ("found", "answer", "text"),
    [
        (told(0.03, 0.01), "beats", "NOAH beats LoRA: +"),
        (told(-0.03, 0.01), "does not beat", "NOAH does not beat LoRA: it is worse: -"),
        (told(0.0, 0.003), "does not beat", "a gain of a point is ruled out"),
        (told(0.0, 0.08), "cannot be told", "cannot be told (a difference is not shown)"),
        (told(0.03, 0.01, 1, 3), "cannot be told", "cannot be told (too few seeds to tell)"),
        (told(0.03, 0.01, 1, 8), "beats", "on these tasks; whether on others"),
        (told(0.03, 0.03, 4, 8), "beats", "NOAH beats LoRA: +"),
        (
            told(0.03, 0.01, 4, 8, 0.03),
            "beats",
            "on these tasks; whether on others, too, cannot be told",
        ),
        (told(0.0, 0.003, 3, 9), "does not beat", "is ruled out: "),
        (
            told(0.0, 0.003, 3, 9, 0.006),
            "does not beat",
            "is ruled out on these tasks; whether on others",
        ),
    ],
)
def test_an_answer_follows_from_its_interval_and_test(
    found: dict[str, Any], answer: str, text: str
) -> None:
    assert found["answer"] == answer
    assert text in found["sentence"]


def test_more_comparisons_make_each_p_larger() -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0.4, 0.8, (4, 2))
    rows = {"noah": scores(base + 0.02), "lora": scores(base), "vpt": scores(base)}
    alone = differences(rows, "noah", ["lora"], TITLES)[0]
    both = differences(rows, "noah", ["lora", "vpt"], TITLES)[0]
    assert alone["p_corrected"] == alone["p"] == pytest.approx(2**-7)
    assert both["p_corrected"] == pytest.approx(2 * alone["p"])
    pairs = compared(rows, [("noah", "lora"), ("noah", "vpt"), ("lora", "noah")], TITLES)
    assert [found["p_corrected"] for found in pairs] == pytest.approx([3 * alone["p"]] * 3)


def test_under_other_recipes_what_was_retrained_alike_is_compared() -> None:
    names = ("micro-vtab", "micro-vtab-paper", "micro-vtab-short-search", "micro-vtab-tenth")
    own, *others = (Recipe.load(name) for name in names)
    assert own.protocol
    settings = Settings(own, own.protocol, (), (0,), "vit-nano", 12, Space.load("micro-vtab"))
    recipes = {recipe.name.removeprefix("micro-vtab-"): recipe for recipe in others}
    recipes["micro-vtab-paper"] = recipes.pop("paper")  # of whose trials short-search takes rates
    rows = [f"{row}{at}" for row in ("noah", "lora") for at in ("", "@micro-vtab-paper", "@tenth")]
    rows += ["noah@short-search", "vpt@tenth", "feasible@short-search"]
    asked = Asked(settings, (), recipes)
    assert alike(asked, rows, ["lora", "vpt"]) == [
        ("noah@short-search", "lora@micro-vtab-paper"),
        ("noah@tenth", "lora@tenth"),
        ("noah@tenth", "vpt@tenth"),
        ("noah@micro-vtab-paper", "lora@micro-vtab-paper"),
    ]
    both = ["feasible@short-search", "feasible@short-search"]
    found = alike(asked, rows, ["feasible"])
    assert [chance for _, chance in found] == both
    paper = replace(settings, recipe=recipes.pop("micro-vtab-paper"))  # a table of that recipe
    assert ("noah@short-search", "lora") in alike(Asked(paper, (), recipes), rows, ["lora"])
    assert ("noah", "lora") not in alike(Asked(paper, (), recipes), rows, ["lora"])


def test_a_row_under_several_recipes_is_held_against_those_that_are_cheaper() -> None:
    passes = {"lora": 90, "noah": 90, "lora@a": 300, "noah@a": 300, "lora@b": 48, "vpt@b": 48}
    rows = {name: {"cost": {"retrain": {"passes": each}}} for name, each in passes.items()}
    assert retrained(rows) == [("lora@a", "lora"), ("lora@a", "lora@b"), ("lora", "lora@b")]


def test_pairs_that_others_lack_are_left_out() -> None:
    first = scores(np.full((3, 3), 0.6))
    second = scores(np.full((3, 3), 0.5))
    del second["t2"][1], second["t2"][2]
    values, tasks = rectangle(first, second)
    assert (values.shape, tasks) == ((2, 3), ["t0", "t1"])
    assert values == pytest.approx(0.1)
    assert rectangle(first, {})[1] == []
    assert whole({"a": [2, 0, 1], "b": [1], "c": [0, 4]}) == {"a": [0, 1], "c": [0, 4]}
    assert whole({"a": [0, 1, 2], "b": [1], "c": [0]}) == {"a": [0], "b": [1], "c": [0]}
    assert whole({"a": []}) == {}


def test_beyond_the_tasks_the_wider_interval_counts() -> None:
    few = told(0.0, 0.01, 3, 9, 0.02)
    narrow, wide = few["difference"], few["over_tasks"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    assert beyond(few) == (wide["low"], wide["high"])
    assert beyond(told(0.0, 0.01, 1, 9)) == (-math.inf, math.inf)


def test_half_an_interval_of_three_seeds_is_student_s() -> None:
    assert half_width([0.5, 0.6, 0.7]) == pytest.approx(4.302653 * 0.1 / math.sqrt(3))
    assert half_width([0.5]) is None


def test_the_curve_holds_recipes_against_the_dearest_and_the_table_s_own() -> None:
    rng = np.random.default_rng(2)
    base = rng.uniform(0.5, 0.7, (6, 3))
    rows = {"noah": scores(base - 0.002), "noah@p": scores(base), "noah@t": scores(base - 0.05)}
    del rows["noah@p"]["t5"]
    stages = {"noah": 300, "noah@p": 1660, "noah@t": 83}
    costs: dict[str, Any] = {
        name: {s: {"passes": count / 4} for s in ("supernet", "search", "epochs", "retrain")}
        | {"rates": {"passes": 0.0}}
        for name, count in stages.items()
    }
    found = curve(rows, costs, {name: name for name in rows})
    assert found is not None
    assert (found["reference"], found["tasks"]) == ("noah@p", ["t0", "t1", "t2", "t3", "t4"])
    assert found["points"]["noah@t"]["share"] == pytest.approx(0.05)
    assert found["points"]["noah@p"]["accuracy"]["mean"] == pytest.approx(base[:5].mean())
    kept = {(row["row"], row["against"]): (row["keeps"], row["pairs"]) for row in found["held"]}
    assert kept == {
        ("noah", "noah@p"): (True, 15),
        ("noah@t", "noah@p"): (False, 15),
        ("noah@t", "noah"): (False, 18),
    }
    assert all(row["keeps_beyond"] == row["keeps"] for row in found["held"])
    assert "keeps the accuracy of noah@p (loses less than 1.0 points): -" in str(found["held"])
    uneven = base[:3] - np.array([[0.008], [-0.004], [-0.004]])
    few = curve({"noah": scores(uneven), "noah@p": scores(base[:3])}, costs, {n: n for n in rows})
    assert few is not None
    (held,) = few["held"]
    assert (held["keeps"], held["keeps_beyond"]) == (True, False)
    assert "(loses less than 1.0 points) on these tasks; whether on others" in held["sentence"]
    assert found["left_out"] == []
    part = curve(rows | {"noah@t": {"t0": rows["noah@t"]["t0"]}}, costs, {n: n for n in rows})
    assert part is not None
    assert (list(part["points"]), part["left_out"]) == (["noah", "noah@p"], ["noah@t"])
    assert part["points"]["noah@p"] == found["points"]["noah@p"]
    assert {row["row"]: row["pairs"] for row in part["held"]} == {"noah": 15, "noah@t": 3}
    apart = {"noah": {"t1": rows["noah"]["t1"]}, "noah@t": rows["noah@t"]}
    apart["noah@p"] = {"t0": rows["noah@p"]["t0"]}
    beside = curve(apart, costs, {n: n for n in rows})
    assert beside is not None
    assert (list(beside["points"]), beside["left_out"]) == (["noah@t", "noah@p"], ["noah"])
    del apart["noah@t"]
    assert curve(apart, costs, {n: n for n in rows}) is None
    assert keeps({"difference": {"low": -0.0101}}) is False
    assert curve({"noah": rows["noah"]}, costs, {"noah": "NOAH"}) is None
