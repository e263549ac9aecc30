from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from noahnas import Arch, Space
from noahnas.errors import ArchError, BackboneError, SpaceError
from noahnas.space import Budget, ModuleSpace, format_space, parse_space, shipped
from noahnas.space.budget import params_amount
from noahnas.space.count import uniform_below

LORA = {"lora": ModuleSpace(1)}


def test_noah_vtab_has_exactly_the_published_number_of_architectures() -> None:
    assert Space.load("noah-vtab").size == 168086938404672000
    assert Space.load("noah-fewshot").size == 4950828515936862208000


def test_every_shipped_space_loads_and_prints_back_to_itself() -> None:
    names = shipped()
    assert {"noah-vtab", "noah-fewshot", "lora-only", "adapter-only", "vpt-only", "tiny"} <= set(
        names
    )
    for name in names:
        space = Space.load(name)
        assert space.name == name
        assert parse_space(format_space(space)) == space


def test_a_tiny_budget_binds(space: Space) -> None:
    rng = np.random.default_rng(0)
    assert not space.feasible(space.largest)
    share = np.mean([space.feasible(space.draw(rng)) for _ in range(2000)])
    assert 0.02 < share <= 0.25


def test_counts_under_0_64_m_are_exact_for_the_papers_spaces() -> None:
    assert Space.load("noah-vtab").count(640_000) == 168086938404671323
    assert Space.load("noah-vtab").count() == 168086938404671323  # its declared budget
    assert Space.load("noah-fewshot").count(640_000) == 136644943580108
    assert Space.load("noah-fewshot").count() == Space.load("noah-fewshot").size


def test_sampling_is_exact_where_hardly_any_draw_meets_the_budget() -> None:
    space = Space.load("noah-fewshot").with_budget(640_000)
    archs = space.sample(np.random.default_rng(0), 50)
    assert all(space.feasible(arch) for arch in archs)
    assert len(set(archs)) == 50


def test_uniform_integers_cover_a_limit_of_any_size() -> None:
    rng = np.random.default_rng(0)
    assert set(uniform_below(rng, 3, 200)) == {0, 1, 2}
    assert uniform_below(rng, 1, 2) == [0, 0]
    large = uniform_below(rng, 10**30, 400)
    assert 0.4 < np.mean([value > 5 * 10**29 for value in large]) < 0.6
    assert max(large) < 10**30


def test_params_add_up_module_by_module(space: Space) -> None:
    arch = Arch(adapter=(1, 8, 0, 0), lora=(2, 0, 0, 0), vpt=(4, 4, 4, 4))
    adapters = (2 * 48 + 1) * (1 + 8) + 2 * 48
    assert space.params(arch) == adapters + 4 * 48 * 2 + 48 * 16


def test_samples_meet_the_budget_and_the_paper_prior_draws_depths_uniformly(space: Space) -> None:
    rng = np.random.default_rng(0)
    assert all(space.feasible(arch) for arch in space.sample(rng, 50, prior="paper"))
    depths = [sum(d > 0 for d in space.draw(rng).dims("lora")) for _ in range(4000)]
    counts = np.bincount(depths, minlength=5)[1:]
    assert counts.min() > 900  # 1000 expected, sd 27
    assert counts.max() < 1100


def test_a_paper_draw_that_never_meets_the_budget_becomes_an_exact_one() -> None:
    space = Space("s", {"lora": ModuleSpace((1, 64), (12,))}, budget=Budget(4 * 768 * 12))
    assert space.sample(np.random.default_rng(0), 2, prior="paper") == [space.cheapest] * 2


def test_a_space_of_an_unknown_module_or_without_blocks_is_refused(space: Space) -> None:
    with pytest.raises(SpaceError, match="did you mean 'adapter'"):
        Space("s", {"adaptr": ModuleSpace((1,))})
    with pytest.raises(SpaceError, match="at least 1"):
        space.bind(blocks=0)


def test_an_arch_outside_the_space_is_refused_with_the_reason(space: Space) -> None:
    for arch, reason in [
        (Arch(lora=(3, 0, 0, 0), vpt=(1, 0, 0, 0), adapter=(1, 0, 0, 0)), "lora [3, 0, 0, 0]"),
        (Arch(lora=(0, 1, 0, 0), vpt=(1, 0, 0, 0), adapter=(1, 0, 0, 0)), "lora [0, 1, 0, 0]"),
        (Arch(lora=(1, 0, 0)), "the arch has 3 blocks, the space 4"),
        (Arch(prefix=(1, 0, 0, 0)), "unknown module 'prefix'"),
    ]:
        with pytest.raises(ArchError) as caught:
            space.encode(arch)
        assert reason in str(caught.value)


def test_a_depth_beyond_the_backbone_is_refused_when_bound() -> None:
    with pytest.raises(SpaceError, match=r"adapter.depth 12 exceeds the backbone's 4 blocks"):
        Space.load("noah-vtab").bind(blocks=4, width=48)


def test_a_budget_that_nothing_meets_names_the_cheapest(space: Space) -> None:
    with pytest.raises(SpaceError, match="the cheapest arch has 385"):
        space.with_budget(384).check_budget()
    space.with_budget(385).check_budget()


@pytest.mark.parametrize(
    ("text", "value"),
    [("640000", 640_000), ("0.64M", 640_000), ("640k", 640_000), ("1.5G", 1_500_000_000)],
)
def test_counts_may_have_a_unit(text: str, value: int) -> None:
    assert params_amount(text).value == value


@pytest.mark.parametrize("text", ["0.5", "1.23456k", "-3", "1e6", "M", "", "1 M M"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"count|whole"):
        params_amount(text)


def test_a_network_that_is_no_vision_transformer_is_refused() -> None:
    import timm

    with pytest.raises(BackboneError, match="a ResNet has no blocks of attention and MLP"):
        Space.load("noah-vtab").bind(timm.create_model("resnet18"))
    with pytest.raises(BackboneError, match="a space takes a timm vision transformer"):
        Space.load("noah-vtab").bind(3)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Space("x", {"lora": {"dim": [1]}}), "'lora' must be a name with a ModuleSpace"),  # type: ignore[dict-item]
        (lambda: Space("x", LORA, blocks="4"), "blocks must be a whole number, not '4'"),  # type: ignore[arg-type]
        (lambda: Space("x", LORA).bind(blocks=4.0), "blocks must be a whole number, not 4.0"),  # type: ignore[arg-type]
        (lambda: Space("x", LORA).bind(classes=-5), "classes must be at least 1"),
        (lambda: Space("x", LORA).bind(width=48, hidden=-1), "hidden must be at least 0"),
        (lambda: Space("x", LORA, rules=[3]), "a rule must be text, not 3"),  # type: ignore[list-item]
        (lambda: Space("x", LORA, rules="lora.dim == 1"), r"a list of rules: \['lora.dim == 1'\]"),
        (lambda: Space("x", LORA, budget="1M"), "budget must be a Budget"),  # type: ignore[arg-type]
        (lambda: Space(3, LORA), "name must be text, not 3"),  # type: ignore[arg-type]
        (lambda: Space("\ud800", LORA), r"name: text holds U\+D800"),
        (lambda: ModuleSpace(1, attributes={"targets": [["q"]]}), "plain values, not \\['q'\\]"),  # type: ignore[dict-item]
        (lambda: Space("x", LORA).count("much"), "count: 'much' is not a count such as"),
        (
            lambda: Space("x", LORA).sample(np.random.default_rng(0), prior="papr"),  # type: ignore[arg-type]
            "prior must be exact or paper, not 'papr'",
        ),
    ],
)
def test_what_python_hands_over_of_the_wrong_kind_is_told(
    made: Callable[[], object], message: str
) -> None:
    with pytest.raises(SpaceError, match=message):
        made()


def test_a_count_takes_what_a_budget_takes() -> None:
    space = Space.load("noah-vtab")
    assert space.count("0.64M") == space.count(640_000) == 168086938404671323
    assert space.count("100% of dearest") == space.size
