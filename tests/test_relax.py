"""Spaces relaxed: probabilities of genes against brute force over every gene vector."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from noahnas import Arch, Space, Supernet
from noahnas.backbone import Backbone
from noahnas.errors import StrategyError
from noahnas.registry import installed, resolve
from noahnas.relax import _best, _tables, check_mixture, decode, expected_params, mixture
from noahnas.space import Budget, Choices, ModuleSpace
from noahnas.space.schema import Value

from .conftest import awake

Array = NDArray[np.float64]
MODULES = {
    "adapter": ModuleSpace(  # a dim that several attributes share
        (0, 1),
        (1, 3),
        "last",
        "all",
        attributes={"placement": Choices(("mlp", "attention"), "pairs")},
    ),
    "lora": ModuleSpace(  # attributes that several dims share
        (0, 2),
        (1, 4),
        attributes={"targets": ("qkv", "fc1"), "alpha": Choices((None, 4), "pairs")},
    ),
    "vpt": ModuleSpace(blocks={"0": (1, 3), "2": 0}, attributes={"init": "normal"}),
}
SMALL = Space("s", MODULES, budget=Budget(120), blocks=4, width=4)
RULES = [
    "at most 2 modules per block",
    "lora.dim non-decreasing",
    "if vpt.dim >= 3 then lora.alpha == 4",
]


def distributions(space: Space, seed: int = 0, concentration: float = 1.0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.full(len(gene.choices), concentration)) for gene in space.genes]


def weights_of(space: Space, arrays: list[Array]) -> dict[str, dict[Value, Tensor]]:
    return {
        gene.name: dict(zip(gene.choices, torch.tensor(p), strict=True))
        for gene, p in zip(space.genes, arrays, strict=True)
    }


def random_weights(space: Space, seed: int = 0) -> dict[str, dict[Value, Tensor]]:
    return weights_of(space, distributions(space, seed))


@cache
def every_vector(space: Space) -> list[tuple[list[int], Arch]]:
    vectors = product(*(range(len(gene.choices)) for gene in space.genes))
    return [(list(vector), space.decode(vector)) for vector in vectors]


def probability(arrays: list[Array], vector: list[int]) -> float:
    return float(np.prod([p[i] for p, i in zip(arrays, vector, strict=True)]))


def likelihood(space: Space, arrays: list[Array], vector: list[int]) -> float:
    """Over the genes that count: the log of a choice's probability over that of the best one."""
    trio = zip(arrays, vector, space.active(vector), strict=True)
    return sum(float(np.log(p[i] / p.max())) for p, i, counts in trio if counts)


def test_expected_params_is_the_mean_over_all_gene_vectors() -> None:
    arrays = distributions(SMALL)
    brute = sum(probability(arrays, v) * SMALL.params(arch) for v, arch in every_vector(SMALL))
    assert float(expected_params(SMALL, weights_of(SMALL, arrays))) == pytest.approx(brute)


def test_expected_params_of_dearer_values_are_more_and_carry_a_gradient() -> None:
    weights = random_weights(SMALL)
    p = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    weights["lora.targets"] = {"qkv": 1 - p, "fc1": p}
    expected_params(SMALL, weights).backward()
    assert p.grad is not None
    assert float(p.grad) > 1  # fc1 has 5·D parameters a rank, qkv 4·D


def test_the_order_in_which_values_are_given_does_not_matter() -> None:
    weights = random_weights(SMALL)
    turned = {gene: dict(reversed(given.items())) for gene, given in weights.items()}
    assert float(expected_params(SMALL, turned)) == pytest.approx(
        float(expected_params(SMALL, weights))
    )


def test_a_mixture_holds_the_probability_of_each_dim_with_each_value() -> None:
    arrays = distributions(SMALL, 1)
    dims, values = mixture(SMALL, weights_of(SMALL, arrays))
    checked = 0
    for name, part in SMALL.parts.items():
        for block, key in product(range(4), part.attributes):
            for dim, value in product(dims[name][block], values[name][key][block]):
                brute = sum(
                    probability(arrays, vector)
                    for vector, arch in every_vector(SMALL)
                    if dim and arch.dim(name, block) == dim
                    and part.filled(arch[name])[key][block] == value
                )  # fmt: skip
                both = dims[name][block][dim] * values[name][key][block][value]
                assert dim == 0 or float(both) == pytest.approx(brute), (name, block, dim, value)
                checked += dim > 0
        for block in range(4):
            absent = sum(
                probability(arrays, v) for v, a in every_vector(SMALL) if not a.dim(name, block)
            )
            assert float(dims[name][block][0]) == pytest.approx(absent)
    assert checked > 20


def searched(backbone: Backbone) -> Space:
    """Attributes of each module that has some that matter, ties and depths from either end."""
    modules = {
        "adapter": ModuleSpace(
            (0, 2, 4),
            (2, "all"),
            "last",
            attributes={
                "placement": Choices(("mlp", "mlp-parallel", "attention"), "none"),
                "activation": ("relu", "gelu"),
                "scale": (0.5, 1),
            },
        ),
        "convpass": ModuleSpace((0, 2), attributes={"placement": ("attention", "both")}),
        "lora": ModuleSpace(
            (0, 1, 4),
            (2, "all"),
            attributes={"targets": Choices(("qkv", "q+v", "k+fc1"), "pairs"), "alpha": (None, 4)},
        ),
        "prefix": ModuleSpace((0, 2), tie="pairs"),
        "vpt": ModuleSpace((0, 1, 3), tie="pairs", attributes={"init": ("xavier", "normal")}),
    }
    return Space("searched", modules).bind(backbone.model)


@pytest.mark.parametrize("seed", range(6))
def test_where_every_probability_is_one_the_mixture_is_that_architecture(
    backbone: Backbone, seed: int
) -> None:
    space = searched(backbone)
    net = awake(Supernet(backbone.model, space, 5)).eval()
    rng = np.random.default_rng(seed)
    vector = rng.integers(space.counts).tolist()
    arrays = [np.eye(n, dtype=np.float32)[i] for n, i in zip(space.counts, vector, strict=True)]
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    relaxed = net.mixture(images, *mixture(space, weights_of(space, arrays)))  # type: ignore[arg-type]
    expected = net(images, space.decode(vector))
    torch.testing.assert_close(relaxed, expected, rtol=0, atol=5e-5)
    assert not torch.allclose(relaxed, net(images, Arch()), atol=1e-3)


# --- decoding --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("price", [0.0, 0.01, 0.03, 0.1, 1.0])
def test_the_genes_chosen_at_a_price_are_the_best_of_all(seed: int, price: float) -> None:
    arrays = distributions(SMALL, seed)
    logs = {g.name: np.log(p / p.max()) for g, p in zip(SMALL.genes, arrays, strict=True)}
    for name, part in SMALL.parts.items():
        alone = Space("alone", {name: MODULES[name]}, blocks=4, width=4)
        own = [p for p, g in zip(arrays, SMALL.genes, strict=True) if g.module == name]

        def value(
            vector: list[int], arch: Arch, alone: Space = alone, own: list[Array] = own
        ) -> float:
            return likelihood(alone, own, vector) - price * alone.params(arch)

        found = _best(part, _tables(alone, part), logs, price)
        brute = max(value(vector, arch) for vector, arch in every_vector(alone))
        assert value(found, alone.decode(found)) == pytest.approx(brute)


@pytest.mark.parametrize("seed", range(8))
def test_without_limits_each_gene_takes_its_likeliest_choice(seed: int) -> None:
    arrays = distributions(SMALL, seed)
    first = decode(SMALL.with_budget(10**6), arrays)[0]
    assert first == SMALL.decode([int(p.argmax()) for p in arrays])


@cache
def likelihoods(seed: int) -> dict[Arch, float]:
    """Of every arch, by its likeliest gene vector."""
    arrays = distributions(SMALL, seed, 4.0)
    found: dict[Arch, float] = {}
    for vector, arch in every_vector(SMALL):
        found[arch] = max(likelihood(SMALL, arrays, vector), found.get(arch, -np.inf))
    return found


@pytest.mark.parametrize("rules", [[], RULES])
@pytest.mark.parametrize("budget", [Budget(120), Budget(150, 90), Budget(150, flops="1.5x")])
@pytest.mark.parametrize("seed", range(3))
def test_decoded_archs_are_of_the_space_feasible_and_nearly_the_likeliest(
    rules: list[str], budget: Budget, seed: int
) -> None:
    space = Space("s", MODULES, budget=budget, rules=rules, blocks=4, width=4)
    archs = decode(space, distributions(space, seed, 4.0))
    assert archs
    assert len(set(archs)) == len(archs)
    assert all(arch in space and space.feasible(arch) for arch in archs)
    scores = likelihoods(seed)
    likelier = [a for a, found in scores.items() if found > scores[archs[0]]]
    assert sum(a in space and space.feasible(a) for a in likelier) < 0.01 * len(scores)
    assert [scores[a] for a in archs] == sorted((scores[a] for a in archs), reverse=True)


def test_a_rule_costs_the_least_likely_of_what_breaks_it() -> None:
    modules = {"lora": ModuleSpace((0, 2)), "vpt": ModuleSpace((0, 1))}
    space = Space("s", modules, rules=["at most 1 modules per block"], blocks=2, width=4)
    lora, vpt = np.array([0.1, 0.9]), np.array([0.4, 0.6])
    one = np.ones(1)
    assert decode(space, [one, lora, lora, one, vpt, vpt])[0] == Arch(lora=(2, 2))
    assert decode(space, [one, vpt, lora, one, lora, vpt])[0] == Arch(lora=(0, 2), vpt=(1, 0))


# --- what cannot be relaxed ------------------------------------------------------------------


def test_too_many_combinations_of_values_are_told_in_one_sentence() -> None:
    kind = resolve("noahnas.modules", "lora", "module")
    targets = kind.attributes["targets"].choices
    many = {"targets": targets, "alpha": tuple(range(1, 11))}
    with pytest.raises(StrategyError) as caught:
        check_mixture(Space("s", {"lora": ModuleSpace((1,), attributes=many)}))
    assert "lora may have 640 combinations of targets and alpha in a block" in str(caught.value)
    assert "use method=spos" in str(caught.value)
    check_mixture(Space("s", {"lora": ModuleSpace((1,), attributes={"targets": targets})}))


ODD = """
from noahnas.modules import PromptModule
from noahnas.space import Attribute

class Odd(PromptModule):
    name = "odd"
    attributes = {"place": Attribute("tokens", "where", ("tokens", "mlp"))}

    @staticmethod
    def params(shape, dim, **attributes):
        return dim

    @staticmethod
    def flops(shape, dim, **attributes):
        return dim

    @staticmethod
    def sites(**attributes):
        return (attributes["place"],)

    def forward(self, site, x, out, dim, layout, **attributes):
        return out
"""


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[None]:
    """A third party's module whose attribute decides whether it adds tokens."""
    (tmp_path / "odd_module.py").write_text(ODD)
    told = tmp_path / "odd-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[noahnas.modules]\nodd = odd_module:Odd\n")
    sys.path.insert(0, str(tmp_path))
    installed.cache_clear()
    yield
    sys.path.remove(str(tmp_path))
    installed.cache_clear()
    resolve.cache_clear()


def test_tokens_under_some_values_only_are_told_in_one_sentence(odd: None) -> None:
    def space(*places: str) -> Space:
        return Space("s", {"odd": ModuleSpace((1,), attributes={"place": places})})

    with pytest.raises(StrategyError, match="odd adds tokens under some values of place and not"):
        check_mixture(space("tokens", "mlp"))
    check_mixture(space("tokens"))
    check_mixture(space("mlp"))
