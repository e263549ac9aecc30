"""The contract of every installed strategy, on real spaces with a score that needs no network."""

from __future__ import annotations

import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from noahnas import Arch, Space, Supernet
from noahnas.backbone import Preprocess
from noahnas.data import LoadOptions, Task, load_data
from noahnas.errors import StrategyError
from noahnas.evaluate import Result
from noahnas.registry import resolve
from noahnas.search import search
from noahnas.space import Budget, ModuleSpace
from noahnas.strategy import (
    GROUP,
    OneShot,
    Proposal,
    Strategy,
    Trial,
    _value,
    make_strategy,
    options_of,
    strategies,
)
from noahnas.study import Study

NAMES = strategies()
BASELINES = ("max", "middle", "single")  # one arch each; tested in test_baselines
SEARCHES = [name for name in NAMES if name not in BASELINES]
BATCH = 7
QUICK = {  # options by which a slow one is tried
    "gp": {"startup": str(BATCH)},
    "predictor": {"startup": str(2 * BATCH), "candidates": "40"},
    "tpe": {"startup": str(2 * BATCH)},
}
ASKS = {"gp": 3}  # of which one is enough to see the model at work


def bound() -> Space:
    return Space.load("tiny").bind(blocks=4, width=48)


def small(name: str) -> Space:
    """A space that is large for a strategy, yet not too large for it."""
    return bound().with_budget(1000) if name == "grid" else bound()


def score(space: Space, proposal: Proposal) -> Trial:
    """Deterministic and separable: lora counts for more than vpt, adapters harm."""
    arch = proposal.arch
    gain = {"lora": 3.0, "vpt": 1.0, "adapter": -1.0}
    value = sum(g * np.sqrt(arch.dims(m)).sum() for m, g in gain.items() if m in arch)
    accuracy = 1 / (1 + np.exp(-value / 10))
    params = space.params(arch)
    passes = proposal.images or 1
    return Trial(proposal, Result(accuracy, accuracy, -value, params, passes, "val"), float(params))


@cache
def checkpoints() -> Path:
    return Path(tempfile.mkdtemp(prefix="noahnas-test-"))


@cache
def supernet(space: Space) -> tuple[Supernet, Task]:
    """A real, small and untrained one, for strategies that train on it, and its data."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=space.width, depth=space.blocks, num_heads=1
    )
    preprocess = Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3)
    task = Task(load_data("digits", LoadOptions((16, 16))), preprocess, torch.device("cpu"))
    return Supernet(vit, space, 5), task


def made(name: str, space: Space, seed: int) -> Strategy:
    """A strategy with its defaults, or quicker; if it is one-shot, briefly trained."""
    kind = resolve(GROUP, name, "strategy")
    if not issubclass(kind, OneShot):
        return make_strategy(name, space, seed, QUICK.get(name))
    strategy = make_strategy(name, space, seed, {"epochs": "1"})
    assert isinstance(strategy, OneShot)
    strategy.begin(*supernet(space), checkpoints() / f"{name}-{hash(space)}-{seed}")
    return strategy


def history(name: str, space: Space, seed: int, asks: int) -> tuple[list[Trial], list[int]]:
    """What `asks` batches give, and where each batch begins."""
    strategy, trials, starts = made(name, space, seed), [], []
    for _ in range(min(asks, ASKS.get(name, asks))):
        starts.append(len(trials))
        batch = [score(space, p) for p in strategy.ask(BATCH)]
        strategy.tell(batch)
        trials += batch
    return trials, starts


@pytest.mark.parametrize("name", SEARCHES)
def test_asks_are_feasible_distinct_and_as_many_as_asked_for(name: str) -> None:
    space = small(name)
    trials, starts = history(name, space, seed=0, asks=12)
    archs = [trial.arch for trial in trials]
    assert len({trial.proposal for trial in trials}) == len(trials)
    assert name == "bandit" or len(set(archs)) == len(archs)
    assert len(archs) > (len(starts) - 2) * BATCH
    assert all(space.misfit(arch) is None and space.feasible(arch) for arch in archs)


@pytest.mark.parametrize("name", SEARCHES)
def test_the_same_seed_asks_the_same_and_another_seed_does_not(name: str) -> None:
    space = small(name)
    first, again, other = (history(name, space, seed, asks=10)[0] for seed in (1, 1, 2))
    assert [t.arch for t in first] == [t.arch for t in again]
    assert [t.arch for t in first] != [t.arch for t in other]


@pytest.mark.parametrize("name", SEARCHES)
def test_replayed_from_each_prefix_it_goes_on_as_it_did(name: str) -> None:
    space = small(name)
    trials, starts = history(name, space, seed=3, asks=10)
    for start, stop in zip(starts, [*starts[1:], len(trials)], strict=True):
        whole, pieces = made(name, space, 3), made(name, space, 3)
        whole.tell(trials[:start])
        for trial in trials[:start]:
            pieces.tell([trial])
        expected = [t.proposal for t in trials[start:stop]]
        assert whole.ask(BATCH) == expected
        assert pieces.ask(BATCH) == expected


@pytest.mark.parametrize("name", SEARCHES)
def test_in_a_small_space_it_proposes_every_feasible_arch_and_then_stops(name: str) -> None:
    space = Space("s", {"lora": ModuleSpace((0, 1, 2))}, budget=Budget(48), blocks=3, width=4)
    feasible = {arch for arch in space.enumerate() if space.feasible(arch)}
    strategy = made(name, space, 0)
    found: list[Proposal] = []
    while proposals := strategy.ask(5):
        strategy.tell([score(space, p) for p in proposals])
        found += proposals
        assert len(set(found)) == len(found)
    assert {p.arch for p in found if p.images is None} == feasible


@pytest.mark.parametrize("name", NAMES)
def test_it_says_in_a_line_what_it_does_and_its_options_have_defaults(name: str) -> None:
    strategy = make_strategy(name, small(name), 0)
    assert 10 < len(type(strategy).summary) < 120
    assert type(strategy).__doc__
    for parameter in options_of(type(strategy)).values():
        assert parameter.default is not parameter.empty


def best(name: str, seed: int, asks: int = 30) -> float:
    space = bound()
    return max(t.result.accuracy for t in history(name, space, seed, asks)[0])


def test_evolution_beats_random_on_a_separable_score() -> None:
    wins = [best("evolution", s) > best("random", s) for s in range(6)]
    assert sum(wins) >= 5


def test_tpe_beats_random_on_a_separable_score() -> None:
    wins = [best("tpe", s, 14) > best("random", s, 14) for s in range(3)]
    assert all(wins)


def test_a_crossover_takes_single_blocks_not_whole_modules() -> None:
    """Parents differ in every block of every module; children mix them within a module."""
    space = bound().with_budget(10**9)
    ones, eights = (Arch(lora=(d,) * 4, vpt=(d,) * 4, adapter=(d,) * 4) for d in (1, 8))
    options = {"population": "2", "top": "2", "mutants": "0", "crossovers": "2"}
    mixed = 0
    for seed in range(6):
        strategy = make_strategy("evolution", space, seed, options)
        strategy.tell([score(space, Proposal(arch)) for arch in (ones, eights)])
        children = [p.arch for p in strategy.ask(2)]
        mixed += sum(set(a.dims("lora")) == {1, 8} for a in children)
        for arch in children:
            for block in range(4):
                assert len({arch.dim(m, block) for m in space.modules}) == 1  # a block is whole
    assert mixed > 6


def parents(space: Space) -> list[Trial]:
    """Fifty equal trials whose dims are all 8, as deep as the budget lets them be."""
    one = Arch(lora=(8, 0, 0, 0), vpt=(8, 0, 0, 0), adapter=(1, 0, 0, 0))
    two = Arch(lora=(1, 1, 0, 0), vpt=(1, 1, 1, 1), adapter=(2, 0, 0, 0))
    return [score(space, Proposal(one)), score(space, Proposal(two))]


def test_a_mutant_changes_dims_in_place_and_a_crossover_mixes_blocks() -> None:
    space = bound().with_budget(10**9)
    options = {"population": "2", "top": "2", "mutants": "2", "crossovers": "0", "s": "0"}
    mutants = make_strategy("evolution", space, 0, options)
    mutants.tell(parents(space))
    deep = [p.arch for p in mutants.ask(2)]
    told = [t.arch for t in parents(space)]
    depths = [{m: sum(d > 0 for d in a.dims(m)) for m in space.modules} for a in (*deep, *told)]
    assert depths[0] in depths[2:]  # s=0: depths stay, so only dims can have changed
    assert depths[1] in depths[2:]
    options |= {"mutants": "0", "crossovers": "2"}
    crossed = make_strategy("evolution", space, 0, options)
    crossed.tell(parents(space))
    dims = {m: {*told[0].dims(m), *told[1].dims(m)} for m in space.modules}
    for child in (p.arch for p in crossed.ask(2)):
        assert all(child.dim(m, 0) in dims[m] for m in space.modules)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evolutoin", {}, "unknown strategy 'evolutoin'; did you mean 'evolution'?"),
        ("evolution", {"populaton": "3"}, "unknown option 'populaton'; did you mean 'population'?"),
        ("evolution", {"population": "many"}, "population is of type int, not 'many'"),
        ("evolution", {"population": "0"}, "population and top are at least 1"),
        ("evolution", {"mutants": "60"}, "exceed the population of 50"),
        ("evolution", {"m": "2"}, "probabilities"),
        ("evolution", {"operators": "papre"}, "did you mean 'paper'"),
        ("random", {"seed": "1"}, "unknown option 'seed'"),
        ("bandit", {"eta": "1"}, "eta at least 2"),
        ("cmaes", {"population": "2"}, "population is at least 4"),
        ("cmaes", {"sigma": "0"}, "sigma is in"),
        ("gp", {"startup": "0"}, "startup is at least 1"),
        ("local", {"draws": "0"}, "draws are at least 1"),
        ("nsga2", {"population": "1"}, "population is at least 2"),
        ("predictor", {"top": "0"}, "at least 1"),
        ("tpe", {"candidates": "0"}, "candidates are at least 1"),
    ],
)
def test_a_wrong_name_or_option_is_refused(
    name: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(StrategyError) as caught:
        make_strategy(name, bound(), 0, options)
    assert message in str(caught.value)


def test_options_may_be_optional_and_of_no_other_type_than_text_gives() -> None:
    class Odd(Strategy):
        def __init__(
            self, space: Space, seed: int, some: int | None = None, many: tuple[int, ...] = ()
        ) -> None:
            super().__init__(space, seed)
            self.some, self.many = some, many

        def ask(self, n: int) -> list[Proposal]:
            return []

    kinds = {name: p.annotation for name, p in options_of(Odd).items()}
    assert _value("odd", "some", "3", kinds["some"]) == 3
    with pytest.raises(StrategyError, match="which --set cannot give"):
        _value("odd", "many", "3", kinds["many"])


def test_a_strategy_s_generator_depends_on_seed_and_history_length_alone() -> None:
    space = bound()
    trials, _ = history("random", space, 0, 1)

    class Silent(Strategy):
        def ask(self, n: int) -> list[Proposal]:
            return []

    one, two = Silent(space, 5), Silent(space, 5)
    one.rng().random(100)
    assert one.rng().random() == two.rng().random()
    one.tell(trials)
    assert one.rng().random() != two.rng().random()


@pytest.fixture(scope="module")
def every_gene(gate: None) -> Space:
    """Ties, selectors, a depth from the last block, attributes, rules, a window of parameters."""
    modules = {
        "gate": ModuleSpace(
            (0, 1, 2), (2, "all"), "last", attributes={"sides": ("one", "both"), "alpha": (1, 2)}
        ),
        "lora": ModuleSpace((0, 1, 2, 4), tie="pairs"),
        "vpt": ModuleSpace(blocks={"0-1": (1, 2), "-1": (0, 3)}),
    }
    rules = [
        "at most 2 modules per block",
        "lora.dim non-decreasing",
        "if lora.depth == all then gate.dim <= 1",
    ]
    return Space("every", modules, budget=Budget(400, 40), rules=rules, blocks=4, width=8)


@pytest.mark.parametrize("name", sorted({*SEARCHES} - {"gp", "nni"}))
def test_a_space_with_every_kind_of_gene_and_rule_is_searched_alike(
    name: str, every_gene: Space, tmp_path: Path
) -> None:
    space = every_gene
    strategy = make_strategy(name, space, 0, QUICK.get(name))
    study = Study.journal(tmp_path / "study.journal", space)

    def evaluated(proposal: Proposal) -> Result:
        return score(space, proposal).result

    search(strategy, partial(map, evaluated), study, trials=60, batch=BATCH)
    proposals = [entry.proposal for entry in study.entries()]
    archs = [proposal.arch for proposal in proposals]
    assert len(set(proposals)) == len(archs) == 60
    assert all(arch in space and space.feasible(arch) for arch in archs)
    assert {v for a in archs if "gate" in a for v in a["gate"].get("alpha", ())} >= {1, 2}
    assert any("sides" in a["gate"] for a in archs if "gate" in a)
    resumed = make_strategy(name, space, 0, QUICK.get(name))
    resumed.tell(strategy.history)
    assert resumed.ask(5) == strategy.ask(5)


def test_evolution_changes_attributes_and_keeps_to_the_rules(every_gene: Space) -> None:
    options = {"population": "20", "top": "4", "mutants": "10", "crossovers": "10"}
    strategy = make_strategy("evolution", every_gene, 1, options)
    first = [score(every_gene, p) for p in strategy.ask(20)]
    strategy.tell(first)
    children = [p.arch for p in strategy.ask(20)]
    assert len(children) == 20
    assert all(child in every_gene for child in children)
