"""The baselines are the archs that they say they are, on spaces small enough to look at all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from noahnas import Arch, Space
from noahnas.errors import SpaceError, StrategyError
from noahnas.space import Budget, ModuleSpace
from noahnas.strategy import make_strategy

from .test_strategies import bound, score


def only(name: str, space: Space, seed: int = 0, **options: str) -> Arch:
    """The arch of a baseline, which proposes it once and is done."""
    strategy = make_strategy(name, space, seed, options)
    (proposal,) = strategy.ask(7)
    assert proposal.images is None
    strategy.tell([score(space, proposal)])
    assert strategy.ask(7) == []
    assert proposal.arch in space
    assert space.feasible(proposal.arch)
    return proposal.arch


def two(dims: Sequence[int] = (1, 2, 4), **given: object) -> Space:
    modules = {
        "lora": ModuleSpace(tuple(dims), (0, 1, 2, 3)),
        "vpt": ModuleSpace((0, *dims), tie="all"),
    }
    return Space("two", modules, blocks=3, width=8, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [None, Budget(100), Budget(130, 60), Budget(70)])
@pytest.mark.parametrize("rules", [(), ("at most 1 modules per block",)])
def test_max_is_a_feasible_arch_with_the_most_params(
    budget: Budget | None, rules: tuple[str, ...]
) -> None:
    space = two(budget=budget, rules=rules)
    most = max(space.params(arch) for arch in space.enumerate() if space.feasible(arch))
    for seed in range(3):
        assert space.params(only("max", space, seed)) == most


def test_max_under_a_budget_that_is_not_counted_is_large_and_feasible() -> None:
    space = two(budget=Budget(flops="1.02x"))
    sizes = sorted(space.params(arch) for arch in space.enumerate() if space.feasible(arch))
    assert space.exact.reason
    assert sizes[-1] < space.params(space.dearest)
    assert space.params(only("max", space)) >= sizes[int(0.98 * len(sizes))]


def test_middle_is_every_gene_at_its_lower_middle_choice_without_a_budget() -> None:
    space = two()
    assert [len(gene.choices) for gene in space.genes] == [4, 3, 3, 3, 1, 4]
    assert only("middle", space) == Arch(lora=(2, 0, 0), vpt=(1, 1, 1))


def test_middle_lowers_all_genes_together_until_the_budget_is_met() -> None:
    free = two()
    whole = free.params(only("middle", free))
    space = two(budget=Budget(whole - 1))
    assert only("middle", space) == Arch(lora=(1, 0, 0), vpt=(1, 1, 1))  # t = 1/3
    assert space.params(only("middle", two(budget=Budget(0)))) == 0


def test_middle_keeps_to_rules_and_least_params() -> None:
    rules = ["lora.dim non-decreasing", "if vpt.dim >= 1 then lora.dim >= 4"]
    space = two(budget=Budget(400, 200), rules=rules)
    assert only("middle", space, 3) == only("middle", space, 3)


def test_single_is_one_dim_in_all_blocks_as_wide_as_the_budget_allows() -> None:
    space = two(budget=Budget(200))  # lora costs 32 a rank and block, prompts 8 a token and block
    assert only("single", space, module="lora") == Arch(lora=(2, 2, 2))
    assert only("single", space, module="vpt") == Arch(vpt=(4, 4, 4))
    assert only("single", space) == Arch(lora=(2, 2, 2))
    tight = two(budget=Budget(64))
    assert only("single", tight, module="lora") == Arch(lora=(1, 1, 0))  # no dim in all three


def test_single_leaves_other_modules_as_small_as_they_can_be() -> None:
    space = bound()
    arch = only("single", space, module="lora")
    assert arch.dims("adapter") == arch.dims("vpt") == (1, 0, 0, 0)
    assert len(set(arch.dims("lora"))) == 1


def test_single_refuses_a_module_that_is_not_there_and_a_budget_that_none_meets() -> None:
    with pytest.raises(StrategyError, match=r"no module 'adapter' \(lora, vpt\)"):
        make_strategy("single", two(), 0, {"module": "adapter"})
    space = two(budget=Budget(10**6, 200), rules=["at most 1 modules per block"])
    strategy = make_strategy("single", space, 0, {"module": "vpt"})
    with pytest.raises(SpaceError, match="no uniform arch of vpt meets rules and budget"):
        strategy.ask(1)


def test_attributes_are_at_their_defaults_in_single() -> None:
    lora = ModuleSpace((0, 1, 2), attributes={"alpha": (1, 2, 4)})
    space = Space("s", {"lora": lora}, blocks=2, width=8)
    arch = only("single", space)
    assert arch.dims("lora") == (2, 2)
    assert arch == space.canonical(arch)


def test_grid_evaluates_each_feasible_arch_once_in_an_order_of_the_seed() -> None:
    space = two(budget=Budget(100), rules=("at most 1 modules per block",))
    feasible = {arch for arch in space.enumerate() if space.feasible(arch)}
    orders = []
    for seed in (0, 0, 1):
        archs = [p.arch for p in make_strategy("grid", space, seed).ask(10**6)]
        assert len(archs) == len(feasible)
        assert set(archs) == feasible
        orders.append(archs)
    assert orders[0] == orders[1] != orders[2]


def test_grid_leaves_out_what_exceeds_a_budget_that_is_not_counted() -> None:
    space = two(budget=Budget(flops="1.02x"))
    feasible = {arch for arch in space.enumerate() if space.feasible(arch)}
    assert {p.arch for p in make_strategy("grid", space, 0).ask(10**6)} == feasible
    assert len(feasible) < space.size


def test_grid_refuses_a_space_that_is_too_large_with_its_size_and_the_fix() -> None:
    with pytest.raises(StrategyError, match=r"200,234 feasible.*more than limit=10000: lower the"):
        make_strategy("grid", bound(), 0)
    with pytest.raises(StrategyError, match=r"about 10\^17 feasible"):
        make_strategy("grid", Space.load("noah-vtab"), 0)
    make_strategy("grid", bound(), 0, {"limit": "200234"})
