"""Counting, drawing and what lies near, against brute force over every kind of gene and rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from noahnas import Arch, Space
from noahnas.errors import SpaceError
from noahnas.space import Budget, Choices, ModuleSpace

pytestmark = pytest.mark.usefixtures("gate")

TIES = ["none", "all", "pairs", "thirds"]
ORDERED = ["non-decreasing", "non-increasing"]
OPERATORS = ["==", "!=", "<", "<=", ">", ">="]


@st.composite
def comparisons(draw: st.DrawFn, names: list[str], blocks: int, gate: list[str]) -> str:
    name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    op = draw(st.sampled_from(OPERATORS))
    kinds = ["depth", "dim", "depths", "dims", *gate]
    kind = draw(st.sampled_from(kinds))
    if kind == "depth":
        right = draw(st.sampled_from(["all", *map(str, range(blocks + 1))]))
        return f"{name}.depth {op} {right}"
    if kind == "dim":
        return f"{name}.dim {op} {draw(st.integers(0, 3))}"
    if kind == "sides":
        return f"gate.sides {draw(st.sampled_from(OPERATORS[:2]))} both"
    if kind == "alpha":
        return f"gate.alpha {op} {draw(st.integers(1, 3))}"
    return f"{name}.{kind[:-1]} {op} {other}.{kind[:-1]}"


@st.composite
def rules(draw: st.DrawFn, names: list[str], blocks: int, gate: list[str]) -> str:
    kind = draw(st.sampled_from(["at most", "order", "if", "comparison"]))
    if kind == "at most":
        return f"at most {draw(st.integers(0, 2))} modules per block"
    if kind == "order":
        terms = [f"{name}.dim" for name in names] + (["gate.alpha"] if "alpha" in gate else [])
        return f"{draw(st.sampled_from(terms))} {draw(st.sampled_from(ORDERED))}"
    one, two = (draw(comparisons(names, blocks, gate)) for _ in range(2))
    return f"if {one} then {two}" if kind == "if" else one


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Small spaces with dim 0, overlapping depths, ties, selectors, attributes and rules."""
    blocks = draw(st.sampled_from([2, 3, 4]))
    names = draw(st.lists(st.sampled_from(["gate", "lora", "vpt"]), min_size=1, unique=True))
    choices = st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True)
    fits = [t for t in TIES if (t != "pairs" or blocks % 2 == 0) and (t != "thirds" or blocks == 3)]
    modules = {}
    gate: list[str] = []
    for name in names:
        depths = draw(st.lists(st.integers(0, blocks), max_size=3, unique=True))
        by_block: dict[str, list[int]] = {}
        dim: list[int] = draw(choices)
        tie = draw(st.sampled_from(fits))
        if tie == "none" and draw(st.booleans()):
            selector = draw(st.sampled_from(["0", "-1", "last 2", "every 2", "1-"]))
            by_block = {selector: draw(choices)}
            dim = draw(st.just([]) | choices)
        attributes: dict[str, Any] = {}
        if name == "gate":
            if draw(st.booleans()):
                attributes["sides"] = Choices(("one", "both"), draw(st.sampled_from(fits)))
            if draw(st.booleans()):
                values = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2, unique=True))
                attributes["alpha"] = Choices(tuple(values), draw(st.sampled_from(fits)))
            gate = sorted(set(attributes) & {"sides", "alpha"})
        start = draw(st.sampled_from(["first", "last"]))
        modules[name] = ModuleSpace(dim, depths, start, tie, by_block, attributes)
    obeyed = draw(st.lists(rules(names, blocks, gate), max_size=2, unique=True))
    try:
        space = Space("s", modules, rules=obeyed, blocks=blocks, width=4)
    except SpaceError:  # a comparison with an attribute value that never occurs
        space = Space("s", modules, blocks=blocks, width=4)
    assume(np.prod([len(gene.choices) for gene in space.genes]) <= 3000)
    return space


def brute(space: Space) -> list[Arch]:
    """Every distinct arch whose rules hold, checked in a way of the test's own."""
    found: dict[Arch, None] = {}
    for index in np.ndindex(*(len(gene.choices) for gene in space.genes)):
        arch = space.decode([int(i) for i in index])
        if all(obeys(space, arch, str(rule)) for rule in space.rules):
            found[arch] = None
    return list(found)


def obeys(space: Space, arch: Arch, rule: str) -> bool:
    blocks = range(space.blocks)
    if rule.startswith("at most"):
        most = int(rule.split()[2])
        return all(sum(arch.dim(m, i) > 0 for m in arch.modules) <= most for i in blocks)

    def value(term: str, block: int) -> Any:
        module, _, attribute = term.partition(".")
        if attribute == "depth":
            return sum(arch.dim(module, i) > 0 for i in blocks)
        if attribute == "dim":
            return arch.dim(module, block)
        if not arch.dim(module, block):
            return None
        default = {"sides": "one", "alpha": None}[attribute]
        return arch[module].get(attribute, (default,) * space.blocks)[block]

    if rule.endswith(tuple(ORDERED)):
        term, order = rule.split()
        module = term.partition(".")[0]
        row = [value(term, i) for i in blocks if arch.dim(module, i)]
        return row == sorted(row, reverse=order == "non-increasing")

    def holds(text: str, block: int) -> bool | None:
        left, op, right = text.split()
        one = value(left, block)
        two: Any = value(right, block) if "." in right else right
        if "." not in right and right not in ("both", "one"):
            two = space.blocks if right == "all" else int(right)
        if one is None or two is None:
            return None
        compare: dict[str, Callable[[Any, Any], bool]] = {
            "==": lambda a, b: a == b,
            "!=": lambda a, b: a != b,
            "<": lambda a, b: a < b,
            "<=": lambda a, b: a <= b,
            ">": lambda a, b: a > b,
            ">=": lambda a, b: a >= b,
        }
        return compare[op](one, two)

    for block in blocks:
        if rule.startswith("if "):
            condition, _, conclusion = rule.removeprefix("if ").partition(" then ")
            if holds(condition, block) is True and holds(conclusion, block) is False:
                return False
        elif holds(rule, block) is False:
            return False
    return True


@settings(max_examples=300)
@given(spaces(), st.integers(0, 120), st.integers(0, 60))
def test_counts_and_draws_are_those_of_brute_force(space: Space, most: int, least: int) -> None:
    archs = brute(space)
    assert space.size == len(archs)
    assert set(space.enumerate()) == set(archs)
    if not archs:
        with pytest.raises(SpaceError, match="no architecture obeys all rules"):
            space.check_budget()
        return
    costs = {arch: space.params(arch) for arch in archs}
    assert space.params(space.cheapest) == min(costs.values())
    assert space.params(space.dearest) == max(costs.values())
    assert space.count(most) == sum(cost <= most for cost in costs.values())
    bounded = space.with_budget(Budget(most, least))
    feasible = {arch for arch, cost in costs.items() if least <= cost <= most}
    assert {arch for arch in archs if bounded.feasible(arch)} == feasible
    assert bounded.count() == len(feasible)
    census = bounded.prices.census
    assert {Arch.trusted(census.unrank(i, least, most)) for i in range(len(feasible))} == feasible


@settings(max_examples=150)
@given(spaces(), st.integers(0, 2**32))
def test_every_draw_is_in_the_space_and_its_vector_is_the_smallest(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if not space.size:
        return
    for arch in (space.draw(rng), *space.sample(rng, 3)):
        assert space.contains(arch)
        assert arch in space
        vector = space.encode(arch)
        assert space.decode(vector) == arch
        assert Arch.from_dict(arch.to_dict()) == arch
        assert Arch.from_dict(arch.to_dict()).digest == arch.digest
    every = np.ndindex(*(len(gene.choices) for gene in space.genes))
    same = [tuple(map(int, v)) for v in every if space.decode([int(i) for i in v]) == arch]
    assert vector == min(same)


@settings(max_examples=100)
@given(spaces())
def test_neighbours_are_mutual_and_distance_is_a_metric(space: Space) -> None:
    archs = brute(space)[:12]
    near = {arch: space.neighbours(arch) for arch in archs}
    for arch in archs:
        assert arch not in near[arch]
        assert len(set(near[arch])) == len(near[arch])
        assert all(other in space for other in near[arch])
        for other in archs:
            assert (other in near[arch]) == (arch in near[other])
            gap = space.distance(arch, other)
            assert gap == space.distance(other, arch)
            assert (gap == 0) == (arch == other)
            for third in archs[:4]:
                assert gap <= space.distance(arch, third) + space.distance(third, other)


@settings(max_examples=100)
@given(spaces(), st.integers(0, 120), st.integers(0, 2**32))
def test_shrinking_leads_into_the_space_and_its_budget(space: Space, most: int, seed: int) -> None:
    bounded = space.with_budget(most)
    if not bounded.size or not bounded.count():
        return
    rng = np.random.default_rng(seed)
    free = Space(space.name, space.modules, blocks=space.blocks, width=space.width)
    arch = bounded.shrink(free.draw(rng), rng)
    assert arch in bounded
    assert bounded.feasible(arch)
