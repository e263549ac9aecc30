"""Fronts of accuracy and cost, the strategy that looks for them, and how a run shows them."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noahnas import Arch, Space
from noahnas.errors import StrategyError
from noahnas.evaluate import Result
from noahnas.front import hypervolume, layers, nondominated
from noahnas.search import Outcome, search
from noahnas.strategies.nsga2 import chosen, crowding
from noahnas.strategy import Multiobjective, Proposal, make_strategy
from noahnas.study import Study

from .conftest import invoke
from .test_strategies import bound, score

POINTS = st.lists(
    st.tuples(st.tuples(st.integers(0, 5), st.integers(0, 3)), st.integers(0, 6)), max_size=12
)


def dominates(one: tuple, other: tuple) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


@given(POINTS)
def test_nondominated_is_what_no_other_point_dominates(points: list) -> None:
    expected = {p for p in points if not any(dominates(q, p) for q in points)}
    front = nondominated(points)
    assert [points[i][1] for i in front] == sorted({p[1] for p in expected})
    assert {points[i] for i in front} == expected
    assert len(front) == len(expected)


@given(POINTS)
def test_layers_hold_every_point_once_and_each_is_the_front_of_the_rest(points: list) -> None:
    found = layers(points)
    assert sorted(itertools.chain(*found)) == list(range(len(points)))
    left = set(range(len(points)))
    for layer in found:
        for i in layer:
            assert not any(dominates(points[j], points[i]) for j in left)
        left -= set(layer)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), max_size=8), st.integers(0, 99))
def test_hypervolume_is_the_mean_of_the_best_accuracy_to_be_had(points: list, seed: int) -> None:
    costs = np.random.default_rng(seed).random(4000)
    best = [max((a for a, c in points if c <= cost), default=0.0) for cost in costs]
    assert hypervolume(points, 1.0) == pytest.approx(np.mean(best), abs=0.05)
    assert hypervolume([(a, 7 * c) for a, c in points], 7) == pytest.approx(hypervolume(points, 1))


def test_hypervolume_by_hand_and_of_a_reference_that_is_none() -> None:
    assert hypervolume([(0.5, 20), (0.8, 60), (0.4, 70)], 100) == pytest.approx(0.2 + 0.32)
    assert hypervolume([(0.9, 200)], 100) == hypervolume([], 100) == 0
    with pytest.raises(ValueError, match="above 0"):
        hypervolume([(0.5, 0)], 0)


def test_crowding_leaves_the_ends_and_the_lonely() -> None:
    room = crowding([(0.1, 0), (0.2, 1), (0.3, 2), (0.9, 10)])
    assert room[0] == room[3] == np.inf
    assert room[2] > room[1] > 0
    assert crowding([(0.1, 3)]) == [np.inf]


# --- the strategy ----------------------------------------------------------------------------


def run(path: Path, space: Space, trials: int = 60, **options: str) -> Outcome:
    strategy = make_strategy("nsga2", space, 3, {"population": "10"} | options)

    def evaluate(proposal: Proposal) -> Result:
        return score(space, proposal).result

    return search(
        strategy, partial(map, evaluate), Study.journal(path, space), trials=trials, batch=4
    )


def test_the_outcome_holds_the_front_of_all_trials_and_the_most_accurate_is_best(
    tmp_path: Path,
) -> None:
    space = bound()
    outcome = run(tmp_path / "s", space)
    trials = [entry.trial for entry in Study.journal(tmp_path / "s", space).entries()]
    points = {(t.result.accuracy, t.result.params) for t in trials}
    assert outcome.front
    front = outcome.front.trials
    assert {(t.result.accuracy, t.result.params) for t in front} == {
        p for p in points if not any(dominates(q, p) for q in points)
    }
    assert all(t.cost == t.result.params for t in front)
    assert front[-1] == outcome.best
    assert outcome.best.result.accuracy == max(a for a, _ in points)
    assert (outcome.front.axis, outcome.front.reference) == ("params", 2000)
    assert outcome.front.hypervolume == hypervolume(sorted(points), 2000)
    told = json.loads(json.dumps(outcome.front.to_dict()))
    assert Arch.from_dict(told["trials"][-1]["arch"]) == outcome.best.arch


def test_nsga2_covers_more_of_the_front_than_random_search(tmp_path: Path) -> None:
    space = bound()
    for seed in range(3):
        volume = {}
        for name in ("nsga2", "random"):
            options = {"population": "20"} if name == "nsga2" else {}
            strategy = make_strategy(name, space, seed, options)
            trials = []
            while len(trials) < 200:
                told = [score(space, p) for p in strategy.ask(10)]
                strategy.tell(told)
                trials += told
            points = [(t.result.accuracy, t.cost or 0.0) for t in trials]
            volume[name] = hypervolume(points, 2000)
        assert volume["nsga2"] > volume["random"]


def test_parents_are_the_first_fronts_and_of_the_last_those_with_most_room() -> None:
    space = bound()
    trials = [score(space, Proposal(arch)) for arch in space.sample(np.random.default_rng(0), 40)]
    pool = chosen(trials, 12)
    points = {t: (t.result.rank, t.cost) for t in trials}
    left_out = [points[t] for t in trials if t not in pool]
    assert len(pool) == 12
    assert not any(dominates(p, points[t]) and p in left_out for t in pool for p in left_out)


def test_flops_are_a_cost_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    space = bound()
    outcome = run(tmp_path / "s", space, 20, against="flops")
    assert outcome.front
    assert [t.cost for t in outcome.front.trials] == [
        space.flops(t.arch) for t in outcome.front.trials
    ]
    assert outcome.front.reference > 0
    with pytest.raises(StrategyError, match="against 'param'; did you mean 'params'"):
        make_strategy("nsga2", space, 0, {"against": "param"})
    with pytest.raises(StrategyError, match="needs a supernet"):
        run(tmp_path / "t", space, 20, against="latency")


def test_a_measured_latency_is_kept_in_the_study_and_told_again(tmp_path: Path) -> None:
    measured: list[Arch] = []

    def latency(arch: Arch) -> float:
        measured.append(arch)
        return 1 + len(measured) % 7 / 10  # never the same again, as on a machine

    space = bound().timed(latency)
    whole = run(tmp_path / "whole", space, 30, against="latency")
    calls = len(measured)
    assert calls == 30
    again = run(tmp_path / "whole", space, 30, against="latency")
    assert again.front == whole.front
    assert len(measured) == calls
    first = Study.journal(tmp_path / "whole", space).entries()
    assert [e.cost for e in first] == [1 + i % 7 / 10 for i in range(1, 31)]
    assert isinstance(make_strategy("nsga2", space, 0), Multiobjective)


# --- through the command ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Using torch")
def test_runs_of_new_strategies_on_a_real_supernet(tmp_path: Path) -> None:
    common = ["--backbone", "vit-digits", "--data", "digits", "--json", "--retrain-epochs", "1"]
    common += ["--trials", "8"]
    first = tmp_path / "nsga2"
    code, out, error = invoke(
        "search", "--strategy", "nsga2", "--set", "population=4", "--supernet-epochs", "1",
        "--out", str(first), *common,
    )  # fmt: skip
    assert code == 0, error
    result = json.loads((first / "result.json").read_text())
    front = result["front"]
    assert json.loads(out)["front"] == front
    assert front["trials"][-1]["arch"] == result["arch"]
    assert front["reference"] == result["budget"] == 2000
    assert 0 < front["hypervolume"] < 1
    costs = [t["cost"] for t in front["trials"]]
    assert costs == sorted(costs) == [t["params"] for t in front["trials"]]
    code, out, _ = invoke("search", "--resume", str(first))
    assert code == 0
    assert f"hypervolume {front['hypervolume']:.3f}" in out
    for name, options in {
        "bandit": ["--set", "images=50"],
        "local": ["--set", "draws=3"],
        "predictor": ["--set", "startup=4", "--set", "candidates=20"],
        "single": ["--set", "module=lora"],
    }.items():
        code, out, error = invoke(
            "search", "--strategy", name, *options, "--supernet", str(first),
            "--out", str(tmp_path / name), *common,
        )  # fmt: skip
        assert code == 0, error
        told = json.loads(out)
        images = json.loads((tmp_path / name / "run.json").read_text())["images"]["val"]
        passes = told["cost"]["search"]["passes"]
        assert told["val"]["passes"] == images  # the winner was scored on all
        if name == "single":
            assert (told["evaluations"], told["exhausted"]) == (1, True)
        else:
            assert 7 * images < passes <= 9 * images
        assert (told["evaluations"] > 8) == (name == "bandit")
