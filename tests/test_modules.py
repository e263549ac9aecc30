"""The contract of every installed prompt module, under every kind of attributes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
import yaml
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from noahnas import Arch, Supernet
from noahnas.modules import Layout, PromptModule, Site
from noahnas.modules.mixture import Mixed
from noahnas.prefixes import tree, wide
from noahnas.registry import installed, resolve
from noahnas.space import Shape, parse_space
from noahnas.space.schema import Value

from .conftest import awake

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


def most(name: str) -> int:
    return kind(name).limit or WIDE


def cases(*more: str, found: Iterable[tuple[Any, ...]]) -> pytest.MarkDecorator:
    """Parametrises by module and attributes, and by what else each case consists of."""
    rows = list(found)
    ids = ["-".join(map(str, (n, *told.values(), *rest))) for n, told, *rest in rows]
    return pytest.mark.parametrize(("name", "told", *more), rows, ids=ids)


CASES = [(name, told) for name in NAMES for told in settings(name)]
EVERY = cases(found=CASES)
WITH_DIMS = cases(found=[case for case in CASES if most(case[0]) > 1])


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


@cases("dim", found=[(n, t, dim) for n, t in CASES for dim in (1, 3, WIDE) if dim <= most(n)])
@pytest.mark.parametrize("shape", [SHAPE, GATED], ids=["plain", "gated"])
def test_params_is_the_number_of_weights_that_a_forward_uses(
    name: str, told: Told, dim: int, shape: Shape
) -> None:
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


@WITH_DIMS
def test_a_small_dim_is_a_slice_of_the_large_one(name: str, told: Told) -> None:
    """Weights beyond the dim do not matter, and a module cut down to the dim gives the same."""
    dim = 2
    large, small = make(name, told), make(name, told, dim)
    weights = dict(large.named_parameters())
    assert set(weights) == {key for key, _ in small.named_parameters()}
    for key, weight in small.named_parameters():
        window = tuple(slice(size) for size in weight.shape)
        weight.data = weights[key].data[window].clone()
    cut, whole = run(small, told, dim), run(large, told, dim)
    for site, out in cut.items():
        torch.testing.assert_close(out, whole[site], rtol=0, atol=1e-5)
    wide = run(large, told, most(name))
    assert not any(torch.equal(wide[site], out) for site, out in whole.items())


@EVERY
def test_the_output_has_the_shape_that_its_site_asks_for(name: str, told: Told) -> None:
    dim = min(3, most(name))
    for site, out in run(make(name, told), told, dim).items():
        added = {"tokens": (1, dim, SHAPE.width), "prefix": (1, dim, 2 * SHAPE.width)}
        assert tuple(out.shape) == added.get(site, tuple(given(site)[1].shape))  # type: ignore[arg-type]


@EVERY
def test_dropout_acts_in_training_alone_and_where_the_module_says(name: str, told: Told) -> None:
    module = make(name, told, dropout=0.5)
    quiet = run(module.eval(), told, most(name))
    again, noisy = run(module, told, most(name)), run(module.train(), told, most(name))
    for site, out in quiet.items():
        torch.testing.assert_close(out, again[site])
    acts = any(not torch.equal(out, noisy[site]) for site, out in quiet.items())
    assert acts == ("No dropout acts on it" not in described(name))


@EVERY
def test_a_module_says_whether_it_starts_as_the_identity(name: str, told: Told) -> None:
    outs = run(fresh(name, told), told, most(name))
    same = all(site not in ADDED and torch.equal(out, given(site)[1]) for site, out in outs.items())  # type: ignore[arg-type]
    said = described(name)
    assert ("Starts as the identity" in said) == same
    assert ("Does not start as the identity" in said) != same


SITES = [(n, told, site) for n, told in CASES for site in kind(n).sites(**told)]
CHANCES = {0: 0.1, 1: 0.2, 2: 0.3, 4: 0.15, 6: 0.25}  # of each dim


@cases("site", found=[case for case in SITES if case[2] not in ADDED])
def test_mixing_dims_is_the_mean_of_what_they_give(name: str, told: Told, site: Site) -> None:
    module, told = make(name, told), kind(name).complete(told)
    chances = {0: 0.1, 1: 0.9} if most(name) == 1 else CHANCES
    weights = {dim: torch.tensor(p, requires_grad=True) for dim, p in chances.items()}
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


@cases("site", found=[case for case in SITES if case[2] in ADDED])
def test_mixing_dims_of_added_tokens_tells_how_likely_each_is_there(
    name: str, told: Told, site: Site
) -> None:
    """What attention does with that: tests/test_papers.py."""
    module, told = make(name, told), kind(name).complete(told)
    weights = {dim: torch.tensor(p, requires_grad=True) for dim, p in CHANCES.items()}
    x, _ = given(site)
    rows, there = Mixed(module, weights, [(told, None)]).tokens(site, x, LAYOUT)
    for dim in CHANCES:
        if dim:
            alone = module(site, x, x, dim, LAYOUT, **told).expand(len(x), -1, -1)
            assert torch.equal(rows[:, :dim], alone)
    expected = [sum(p for dim, p in CHANCES.items() if dim > j) for j in range(max(CHANCES))]
    assert there.tolist() == pytest.approx(expected)
    torch.autograd.grad(there.square().sum(), [weights[dim] for dim in CHANCES])


@pytest.mark.parametrize("name", sorted({n for n, _, site in SITES if site in ADDED}))
def test_a_batch_of_several_archs_adds_to_each_image_its_own_arch_s_tokens(name: str) -> None:
    """Equal dims, so that they share a forward; attributes and the block before differ."""
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=6, patch_size=2, embed_dim=12, depth=2, num_heads=2)
    offered = {key: list(declared.choices) for key, declared in kind(name).attributes.items()}
    declared = {name: {"dim": [3], **offered}, "lora": {"dim": [0, 1, 2]}}
    space = parse_space(yaml.safe_dump({"name": "s", "modules": declared}), "s.yaml").bind(vit)
    archs = [
        Arch(**{name: {"dim": (3, 3), **{k: (v, v) for k, v in told.items()}}}, lora=(rank, 0))
        for told in settings(name)
        for rank in (0, 1, 2)
    ]
    net = awake(Supernet(vit, space, 3)).eval()
    x = torch.randn(5, 3, 6, 6)
    runs: list[int] = []
    net.backbone.blocks[1].register_forward_pre_hook(lambda _m, args: runs.append(len(args[0])))
    with torch.no_grad():
        together = dict(wide(net, x, tree(net, archs), 100))
        assert runs == [len(archs) * len(x)]
        for arch in archs:
            torch.testing.assert_close(together[arch], net(x, arch), rtol=0, atol=1e-5)
    pairs = pairwise(together.values())
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in pairs)


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
