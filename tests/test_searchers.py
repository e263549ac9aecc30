"""What is particular to single strategies, and how trials on fewer images are charged."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from noahnas import Arch, Space
from noahnas.errors import StrategyError
from noahnas.evaluate import Result
from noahnas.search import Outcome, search
from noahnas.space import Budget, ModuleSpace
from noahnas.strategies.local import LocalSearch
from noahnas.strategies.predictor import Model, features
from noahnas.strategy import Proposal, Strategy, Trial, make_strategy
from noahnas.study import Study

from .test_strategies import best, bound, score

IMAGES = 200


class Died(Exception):  # noqa: N818
    """Stands for a killed process."""


# --- fewer images ----------------------------------------------------------------------------


def shown(space: Space, proposal: Proposal) -> Result:
    """The score, noisy on few images, and as many passes as images."""
    images = proposal.images or IMAGES
    rng = np.random.default_rng([int(proposal.arch.digest, 16), images])
    true = score(space, proposal).result
    accuracy = float(np.clip(true.accuracy + rng.normal(0, 1 / images), 0, 1))
    return Result(accuracy, accuracy, 1 - accuracy, true.params, images, "val")


def bandit(path: Path, trials: int = 20, die_at: int = 0, **options: str) -> Outcome:
    space, calls = bound(), 0

    def evaluate(proposal: Proposal) -> Result:
        nonlocal calls
        calls += 1
        if calls == die_at:
            raise Died
        return shown(space, proposal)

    strategy = make_strategy("bandit", space, 1, options)
    study = Study.journal(path, space)
    return search(strategy, partial(map, evaluate), study, trials=trials, batch=5, images=IMAGES)


def proposals(path: Path) -> list[Proposal]:
    return [entry.proposal for entry in Study.journal(path, bound()).entries()]


def test_a_bandit_spends_the_passes_of_its_trials_on_more_archs(tmp_path: Path) -> None:
    outcome = bandit(tmp_path / "s")
    asked = proposals(tmp_path / "s")
    assert outcome.passes == sum(p.images or IMAGES for p in asked)
    assert 20 * IMAGES - IMAGES < outcome.passes < 20 * IMAGES + 5 * IMAGES
    assert len({p.arch for p in asked}) > 30
    assert {p.images for p in asked} == {25, 75, None}
    assert outcome.evaluations == len(asked)
    assert outcome.best.proposal.images is None


def test_a_bandit_promotes_the_best_third_of_a_rung(tmp_path: Path) -> None:
    bandit(tmp_path / "s")
    trials = [entry.trial for entry in Study.journal(tmp_path / "s", bound()).entries()]
    on = {k: [t for t in trials if t.proposal.images == k] for k in (25, 75, None)}
    for low, high in ((25, 75), (75, None)):
        promoted = {t.arch for t in on[high]}
        assert promoted <= {t.arch for t in on[low]}
        assert len(on[low]) / 6 < len(promoted) < len(on[low]) / 2  # a third, as ranks move
        ranks = sorted((t.result.rank for t in on[low]), reverse=True)
        kept = [t.result.rank for t in on[low] if t.arch in promoted]
        assert np.mean([r[0] for r in kept]) > np.mean([r[0] for r in ranks])


@pytest.mark.parametrize("die_at", [4, 17, 43])
def test_a_bandit_that_died_goes_on_with_the_same_sequence(tmp_path: Path, die_at: int) -> None:
    whole = bandit(tmp_path / "whole")
    with pytest.raises(Died):
        bandit(tmp_path / "cut", die_at=die_at)
    resumed = bandit(tmp_path / "cut")
    assert proposals(tmp_path / "cut") == proposals(tmp_path / "whole")
    assert (resumed.best, resumed.passes) == (whole.best, whole.passes)


def test_a_winner_is_scored_on_all_images_though_the_budget_ends_before(tmp_path: Path) -> None:
    outcome = bandit(tmp_path / "s", trials=1, images="50", eta="2")
    asked = proposals(tmp_path / "s")
    assert [p.images for p in asked] == [50, 50, 100, None]  # a trial, and one on all images
    assert asked[-1].arch == asked[2].arch
    assert outcome.best.proposal == asked[-1]
    assert bandit(tmp_path / "s", trials=1, images="50", eta="2") == outcome


def test_only_scores_on_all_images_compare(tmp_path: Path) -> None:
    """An arch that looks perfect on few images does not win."""
    space = bound()
    archs = space.sample(np.random.default_rng(0), 3)

    class Three(Strategy):
        def ask(self, n: int) -> list[Proposal]:
            asked = [Proposal(archs[0], 10), Proposal(archs[1]), Proposal(archs[2], 500)]
            return asked[len(self.history) :][:n]

    def evaluate(proposal: Proposal) -> Result:
        accuracy = 1.0 if proposal.images else 0.5
        return Result(accuracy, accuracy, 0.1, 1, proposal.images or IMAGES, "val")

    study = Study.journal(tmp_path / "s", space)
    outcome = search(
        Three(space, 0), partial(map, evaluate), study, trials=9, batch=3, images=IMAGES
    )
    assert outcome.best.arch == archs[1]
    assert outcome.passes == 10 + 2 * IMAGES  # 500 are as many as there are: all
    assert [e.proposal.images for e in study.entries()] == [10, None, None]


def test_a_proposal_on_no_images_is_refused(tmp_path: Path) -> None:
    class Blind(Strategy):
        def ask(self, n: int) -> list[Proposal]:
            return [Proposal(self.space.cheapest, 0)]

    space = bound()
    score = partial(map, lambda p: shown(space, p))
    with pytest.raises(StrategyError, match="Blind proposed to score on 0 images"):
        search(
            Blind(space, 0), score, Study.journal(tmp_path / "s", space),
            trials=3, batch=3, images=IMAGES,
        )  # fmt: skip


# --- evolution -------------------------------------------------------------------------------


def bred(space: Space, **options: str) -> tuple[list[Arch], list[Arch]]:
    """Two parents of unlike dims, and their children."""
    parents = [
        Arch(lora=(8, 8, 0, 0), vpt=(8, 8, 8, 0), adapter=(8, 0, 0, 0)),
        Arch(lora=(1, 1, 1, 0), vpt=(1, 0, 0, 0), adapter=(1, 1, 0, 0)),
    ]
    given = {"population": "2", "top": "2", "operators": "paper"} | options
    children = []
    for seed in range(8):
        strategy = make_strategy("evolution", space, seed, given)
        strategy.tell([score(space, Proposal(arch)) for arch in parents])
        children += [p.arch for p in strategy.ask(2)]
    return parents, children


def test_the_paper_s_mutation_changes_depths_and_no_dim_in_place() -> None:
    space = bound().with_budget(10**9)
    parents, children = bred(space, mutants="2", crossovers="0", s="0.7")
    assert len(children) == 16
    for child in children:
        kept = [
            all(a == b for m in space.modules for a, b in zip(child.dims(m), p.dims(m), strict=True)
                if a and b)
            for p in parents
        ]  # fmt: skip
        assert any(kept)
        assert child not in parents


def test_the_paper_s_crossover_swaps_whole_modules() -> None:
    space = bound().with_budget(10**9)
    parents, children = bred(space, mutants="0", crossovers="2")
    assert len(set(children)) > 3
    for child in children:
        for module in space.modules:
            assert child.dims(module) in [p.dims(module) for p in parents]
        assert child not in parents


def test_with_ageing_an_old_arch_is_no_parent_however_good() -> None:
    space = bound().with_budget(10**9)
    best_of_all = Arch(lora=(8,) * 4, vpt=(8,) * 4, adapter=(1, 0, 0, 0))
    younger = [Arch(lora=(1, 1, 1, 1), vpt=(d, 1, 1, 1), adapter=(e, e, e, e))
               for d in (1, 2) for e in (1, 2)]  # fmt: skip
    told = [score(space, Proposal(arch)) for arch in (best_of_all, *younger)]
    options = {"population": "4", "top": "4", "mutants": "4", "crossovers": "0", "m": "0.05",
               "s": "0"}  # fmt: skip
    near = {}
    for ageing in ("true", "false"):
        strategy = make_strategy("evolution", space, 0, options | {"ageing": ageing})
        strategy.tell(told)
        near[ageing] = min(space.distance(p.arch, best_of_all) for p in strategy.ask(3))
    assert near["true"] > 15 > near["false"]


# --- local -----------------------------------------------------------------------------------


def test_a_climb_goes_by_neighbours_and_restarts_where_it_is_stuck() -> None:
    space = Space("s", {"lora": ModuleSpace((0, 1, 2, 3, 4, 5))}, blocks=3, width=8)
    target = Arch(lora=(4, 2, 3))
    strategy = make_strategy("local", space, 2, {"draws": "1"})
    assert isinstance(strategy, LocalSearch)
    path: list[Arch] = []
    for _ in range(60):
        (proposal,) = strategy.ask(1)
        path.append(proposal.arch)
        near = 1 / (1 + space.distance(proposal.arch, target))
        strategy.tell([Trial(proposal, Result(near, near, 1 - near, 1, 1, "val"))])
    at = path.index(target)
    assert at < 40
    steps = [space.distance(target, arch) for arch in path[at + 1 :]]
    around = len([a for a in space.neighbours(target) if a not in path[:at]])
    assert steps[:around] == [1] * around  # all of them are tried, then a new climb begins
    assert steps[around] > 1


def test_local_search_moves_along_a_budget_that_single_steps_cannot() -> None:
    space = Space("s", {"lora": ModuleSpace((0, 1, 2, 3))}, budget=Budget(96), blocks=3, width=8)
    full = Arch(lora=(3, 0, 0))
    assert all(space.params(a) <= 64 for a in space.neighbours(full) if space.feasible(a))
    first = Trial(Proposal(full), Result(0.9, 0.9, 0.1, 96, 1, "val"))
    for seed in range(3):
        strategy = make_strategy("local", space, seed, {"draws": "1"})
        strategy.tell([first])
        asked = [proposal.arch for proposal in strategy.ask(3)]
        assert any(space.params(arch) == 96 for arch in asked)  # up in one block, down in another


# --- models ----------------------------------------------------------------------------------


def test_the_predictor_s_model_ranks_archs_that_it_has_not_seen() -> None:
    space, rng = bound(), np.random.default_rng(0)
    trials = [score(space, Proposal(arch)) for arch in space.sample(rng, 160)]
    rows = np.stack([features(space, trial.arch) for trial in trials])  # (160, features)
    scores = np.array([trial.result.accuracy for trial in trials])
    noisy = scores + rng.normal(0, 0.02, 160)
    model = Model.fit(rows[:120], noisy[:120])
    mean, sd = model.predict(rows[120:])
    assert np.corrcoef(mean, scores[120:])[0, 1] > 0.9
    assert (sd > 0).all()
    assert sd.mean() > model.predict(rows[:120])[1].mean()  # less sure of what it has not seen
    constant = Model.fit(rows[:30], np.full(30, 0.5))
    assert constant.predict(rows[:3])[0] == pytest.approx(0.5)


def test_features_tell_archs_apart_and_hold_attributes(gate: None) -> None:
    gated = ModuleSpace((0, 1, 2), attributes={"sides": ("one", "both"), "alpha": (1, 2)})
    space = Space("s", {"gate": gated, "lora": ModuleSpace((1, 2))}, blocks=2, width=8)
    archs = list(space.enumerate())
    rows = np.stack([features(space, arch) for arch in archs])
    assert len(np.unique(rows, axis=0)) == len(set(archs))
    assert rows.min() == 0
    assert rows.max() == 1


@pytest.mark.parametrize(("name", "asks"), [("local", 30), ("cmaes", 30), ("predictor", 8)])
def test_an_informed_strategy_beats_random_on_a_separable_score(name: str, asks: int) -> None:
    wins = [best(name, seed, asks) > best("random", seed, asks) for seed in range(4)]
    assert sum(wins) >= 3


def test_qmc_spreads_first_values_more_evenly_than_random_draws() -> None:
    modules = {"lora": ModuleSpace(tuple(range(1, 17))), "vpt": ModuleSpace(tuple(range(1, 17)))}
    space = Space("s", modules, blocks=1, width=8)
    archs = [p.arch for p in make_strategy("qmc", space, 0).ask(64)]
    for name in modules:
        counts = np.bincount([arch.dim(name, 0) for arch in archs], minlength=17)[1:]
        assert set(counts) == {4}  # a Sobol sequence: each of 16 values as often
