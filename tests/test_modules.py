"""The contract of every installed prompt module, under every kind of attributes."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from noahnas.modules import Layout, PromptModule, Site
from noahnas.registry import installed, resolve
from noahnas.space import Shape
from noahnas.space.schema import Value

SHAPE = Shape(blocks=2, width=12, hidden=20, tokens=8)
GATED = Shape(blocks=2, width=12, hidden=20, tokens=8, gated=True)
LAYOUT = Layout(special=2, rows=2, columns=3)
WIDE = 6  # the largest dim, of modules that have a choice
NAMES = list(installed("noahnas.modules"))
ADDED = ("tokens", "prefix")  # sites where tokens are added, and no output is changed
Told = dict[str, Value]


def kind(name: str) -> type[PromptModule]:
    found: type[PromptModule] = resolve("noahnas.modules", name, "module")
    return found


def settings(name: str) -> list[Told]:
    """The defaults; every choice of each attribute, numbers at two values; a few at once."""
    if name == "lora":
        targets = ["qkv", "q", "v", "proj", "fc1", "fc2", "q+v", "k+fc2", "q+k+v+proj+fc1+fc2"]
        return [{"targets": t} for t in targets] + [
            {"alpha": 3.0},
            {"alpha": 8, "targets": "q+v+fc1"},
        ]
    declared = kind(name).attributes
    values = {key: attribute.choices or (0.5, 2) for key, attribute in declared.items()}
    found: list[Told] = [{}]
    found += [{k: v} for k in values for v in values[k] if v != declared[k].default]
    return found + ([{k: v[-1] for k, v in values.items()}] if len(values) > 1 else [])


CASES = [(name, told) for name in NAMES for told in settings(name)]
EVERY = pytest.mark.parametrize(
    ("name", "told"), CASES, ids=[f"{n}-{'-'.join(map(str, t.values()))}" for n, t in CASES]
)


def most(name: str) -> int:
    return kind(name).limit or WIDE


def described(name: str) -> str:
    """The class's docstring on one line."""
    return " ".join((inspect.getdoc(kind(name)) or "").split())


def make(name: str, told: Told, dim: int | None = None, dropout: float = 0.0) -> Any:
    """A module for these attributes alone, every weight drawn anew."""
    module = fresh(name, told, dim, dropout)
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    return module


def fresh(
    name: str, told: Told, dim: int | None = None, dropout: float = 0.0, shape: Shape = SHAPE
) -> Any:
    torch.manual_seed(0)
    values = {key: (value,) for key, value in kind(name).complete(told).items()}
    return kind(name)(shape, dim or most(name), values, dropout)  # type: ignore[call-arg]


def given(site: Site, shape: Shape = SHAPE) -> tuple[Tensor, Tensor]:
    """Input and output of a layer, and the same tokens twice where there is no layer."""
    generator = torch.Generator().manual_seed(1)
    inputs = {"hidden": shape.hidden, "fc2": shape.hidden}.get(site, shape.width)
    outputs = {"qkv": 3 * shape.width, "hidden": shape.hidden, "fc1": shape.fc1}
    x = torch.randn(2, shape.tokens, inputs, generator=generator)
    out = torch.randn(2, shape.tokens, outputs.get(site, shape.width), generator=generator)
    return (x, x) if site in (*ADDED, "hidden") else (x, out)


def run(module: Any, told: Told, dim: int, shape: Shape = SHAPE) -> dict[str, Tensor]:
    """What the module gives at each of its sites."""
    told = module.complete(told)
    return {
        site: module(site, *given(site, shape), dim, LAYOUT, **told)
        for site in module.sites(**told)
    }


@EVERY
def test_a_module_is_named_like_its_entry_point_and_acts_at_known_sites(
    name: str, told: Told
) -> None:
    assert kind(name).name == name
    sites = kind(name).sites(**told)
    assert sites
    assert len(set(sites)) == len(sites)
    assert set(sites) <= set(get_args(Site))


@EVERY
@pytest.mark.parametrize("dim", [1, 3, WIDE])
@pytest.mark.parametrize("shape", [SHAPE, GATED], ids=["plain", "gated"])
def test_params_is_the_number_of_weights_that_a_forward_uses(
    name: str, told: Told, dim: int, shape: Shape
) -> None:
    if dim > most(name):
        return
    module = fresh(name, told, shape=shape)
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    torch.stack(
        [out.square().sum() for out in run(module, told, dim, shape).values()]
    ).sum().backward()
    used = sum(int((p.grad != 0).sum()) for p in module.parameters() if p.grad is not None)
    assert kind(name).params(shape, dim, **told) == used
    alone = fresh(name, told, dim, shape=shape)
    assert sum(p.numel() for p in alone.parameters()) == used


@EVERY
def test_params_and_flops_of_the_absent_module_are_zero(name: str, told: Told) -> None:
    assert kind(name).params(SHAPE, 0, **told) == 0
    assert kind(name).flops(SHAPE, 0, **told) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_dim_that_no_module_has_is_an_error(name: str) -> None:
    for count in (kind(name).params, kind(name).flops):
        with pytest.raises(ValueError, match="at least 0"):
            count(SHAPE, -1)
        if kind(name).limit:
            with pytest.raises(ValueError, match=r"1 \(there\) or 0"):
                count(SHAPE, 2)


@EVERY
def test_a_small_dim_is_a_slice_of_the_large_one(name: str, told: Told) -> None:
    """Weights beyond the dim do not matter, and a module cut down to the dim gives the same."""
    dim = min(2, most(name))
    large, small = make(name, told), make(name, told, dim)
    weights = dict(large.named_parameters())
    assert set(weights) == {key for key, _ in small.named_parameters()}
    for key, weight in small.named_parameters():
        window = tuple(slice(size) for size in weight.shape)
        weight.data = weights[key].data[window].clone()
    cut, whole = run(small, told, dim), run(large, told, dim)
    for site, out in cut.items():
        torch.testing.assert_close(out, whole[site], rtol=0, atol=1e-5)
    if most(name) > 2:
        wide = run(large, told, most(name))
        assert not any(torch.equal(wide[site], out) for site, out in whole.items())


@EVERY
def test_the_output_has_the_shape_that_its_site_asks_for(name: str, told: Told) -> None:
    dim = min(3, most(name))
    for site, out in run(make(name, told), told, dim).items():
        added = {"tokens": (1, dim, SHAPE.width), "prefix": (1, dim, 2 * SHAPE.width)}
        assert tuple(out.shape) == added.get(site, tuple(given(site)[1].shape))  # type: ignore[arg-type]


@EVERY
def test_dropout_acts_in_training_alone(name: str, told: Told) -> None:
    if "No dropout acts on it" in described(name):
        return
    module = make(name, told, dropout=0.5)
    quiet = run(module.eval(), told, most(name))
    again, noisy = run(module, told, most(name)), run(module.train(), told, most(name))
    for site, out in quiet.items():
        torch.testing.assert_close(out, again[site])
    assert any(not torch.equal(out, noisy[site]) for site, out in quiet.items())


@EVERY
def test_a_module_says_whether_it_starts_as_the_identity(name: str, told: Told) -> None:
    outs = run(fresh(name, told), told, most(name))
    same = all(site not in ADDED and torch.equal(out, given(site)[1]) for site, out in outs.items())  # type: ignore[arg-type]
    said = described(name)
    assert ("Starts as the identity" in said) == same
    assert ("Does not start as the identity" in said) != same


@EVERY
def test_mixing_dims_is_the_mean_of_what_they_give(name: str, told: Told) -> None:
    module, told = make(name, told), kind(name).complete(told)
    chances = {0: 0.1, 1: 0.9} if most(name) == 1 else {0: 0.1, 1: 0.2, 2: 0.3, 4: 0.15, 6: 0.25}
    weights = {dim: torch.tensor(p, requires_grad=True) for dim, p in chances.items()}
    for site in module.sites(**told):
        if site in ADDED:
            continue
        x, out = given(site)
        mean = sum(
            p * (module(site, x, out, dim, LAYOUT, **told) if dim else out)
            for dim, p in chances.items()
        )
        for mixed in (
            module.mix(site, x, out, weights, LAYOUT, **told),
            PromptModule.mix(module, site, x, out, weights, LAYOUT, **told),
        ):
            torch.testing.assert_close(mixed, mean, rtol=0, atol=1e-4)
            torch.autograd.grad(mixed.sum(), list(weights.values()))


@pytest.mark.parametrize("name", NAMES)
def test_every_attribute_has_a_default_that_it_may_take_and_a_line_of_help(name: str) -> None:
    for declared in kind(name).attributes.values():
        assert declared.fault(declared.default) is None
        assert declared.fault("no such value") is not None
        assert declared.help


def test_params_follow_the_papers_formulas_at_vit_b() -> None:
    def cost(name: str, dim: int = 10, **told: Value) -> int:
        return kind(name).params(Shape(), dim, **told)

    assert cost("adapter") == (2 * 768 + 1) * 10 + 768
    assert cost("lora") == 4 * 768 * 10
    assert cost("lora", targets="q+v") == 2 * 2 * 768 * 10
    assert cost("lora", targets="fc1+fc2") == 2 * (768 + 3072) * 10
    assert cost("vpt") == 768 * 10
