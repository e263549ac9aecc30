"""Attributes of prompt modules in a supernet: where they act, what they share, what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from noahnas import Arch, Space, Supernet
from noahnas.backbone import Backbone
from noahnas.errors import ArchError
from noahnas.export import load_trained, save_trained
from noahnas.modules.adapter import ACTIVATIONS
from noahnas.registry import installed, resolve
from noahnas.space import ModuleSpace, Shape
from noahnas.space.flops import backbone_flops, block_flops, linear_flops
from noahnas.space.schema import Value

from .conftest import awake
from .test_modules import settings

Offered = Mapping[str, Mapping[str, tuple[Value, ...]]]
OFFERED: Offered = {
    "adapter": {
        "placement": ("mlp", "mlp-parallel", "attention", "attention-parallel"),
        "scale": (1.0, 0.5),
        "activation": ("quick_gelu", "relu", "gelu"),
    },
    "lora": {
        "targets": ("qkv", "q+v", "k", "proj", "q+k+v+proj+fc1+fc2", "fc1+fc2"),
        "alpha": (None, 4.0),
    },
    "vpt": {"init": ("xavier", "normal")},
}


@dataclass(frozen=True, eq=False)
class Offering(Space):
    """A space that offers values of attributes, as one that is read from a file does."""

    offered: Offered = field(default_factory=dict, kw_only=True)

    @property
    def choices(self) -> dict[str, dict[str, tuple[Value, ...]]]:
        return {m: {**told, **self.offered.get(m, {})} for m, told in super().choices.items()}


def space(offered: Offered = OFFERED) -> Offering:
    return Offering("offering", {m: ModuleSpace((0, 2, 5)) for m in offered}, offered=offered)


def draw(rng: np.random.Generator, offered: Offered = OFFERED, blocks: int = 4) -> Arch:
    """Any arch of the space."""
    return Arch(
        **{
            name: {"dim": [(0, 2, 5)[i] for i in rng.integers(3, size=blocks)]}
            | {k: [v[i] for i in rng.integers(len(v), size=blocks)] for k, v in told.items()}
            for name, told in offered.items()
        }
    )


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def by_hand(net: Supernet, x: Tensor, arch: Arch) -> Tensor:
    """The forward written out from the papers, sharing nothing with Supernet.forward."""
    vit: Any = net.backbone
    x = vit._pos_embed(vit.patch_embed(x))
    count = x.shape[1]
    for i, block in enumerate(vit.blocks):
        told = {m: {k: v[i] for k, v in arch[m].items()} for m in arch.modules if arch.dim(m, i)}
        lora: dict[str, Any] = told.get("lora", {})
        adapter: dict[str, Any] = told.get("adapter", {})

        def linear(layer: Any, name: str, x: Tensor, told: Any = lora, i: int = i) -> Tensor:
            out: Tensor = layer(x)
            if not told:
                return out
            r, module = told["dim"], net.prompts["lora"][i]
            scale = told["alpha"] / r if told["alpha"] else 1
            if name == "qkv" and told["targets"] == "qkv":
                return out + scale * x @ module.down[:r].T @ module.up[:, :r].T
            for part in told["targets"].split("+"):
                if part != name and (name != "qkv" or part not in ("q", "k", "v")):
                    continue
                pair = module.pairs[part]
                delta = scale * x @ pair.down[:r].T @ pair.up[:, :r].T
                if name == "qkv":
                    out = out + F.pad(delta, [48 * "qkv".index(part), 48 * (2 - "qkv".index(part))])
                else:
                    out = out + delta
            return out

        def adapted(
            branch: str, read: Tensor, m: Tensor, told: Any = adapter, i: int = i
        ) -> Tensor:
            place = told.get("placement", "")
            if not place.startswith(branch):
                return m
            module = net.prompts["adapter"][i]
            w = module if place == "mlp" else module.placed[place]
            h = told["dim"]
            z = (read if "parallel" in place else m) @ w.down[:h].T + w.down_bias[:h]
            z = ACTIVATIONS[told["activation"]](z)
            return m + told["scale"] * (z @ w.up[:, :h].T + w.up_bias)

        if "vpt" in told:
            module = net.prompts["vpt"][i]
            tokens = {"xavier": "tokens", "normal": "normal_tokens"}[told["vpt"]["init"]]
            prompts = getattr(module, tokens)[: told["vpt"]["dim"]]
            x = torch.cat([x[:, :count], prompts.expand(len(x), -1, -1)], 1)
        n = block.norm1(x)
        qkv = linear(block.attn.qkv, "qkv", n)
        b, tokens_, width = x.shape
        heads = block.attn.num_heads
        q, k, v = qkv.view(b, tokens_, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * (width // heads) ** -0.5).softmax(-1) @ v
        a = linear(block.attn.proj, "proj", mixed.transpose(1, 2).reshape(b, tokens_, width))
        x = x + adapted("attention", n, a)
        n = block.norm2(x)
        hidden = F.gelu(linear(block.mlp.fc1, "fc1", n))
        x = x + adapted("mlp", n, linear(block.mlp.fc2, "fc2", hidden))
    return vit.head(vit.norm(x[:, :count])[:, 0])


@pytest.mark.parametrize("seed", range(12))
def test_the_forward_with_attributes_equals_one_written_by_hand(
    backbone: Backbone, seed: int
) -> None:
    net = awake(Supernet(backbone.model, space(), 5)).eval()
    arch = draw(np.random.default_rng(seed))
    torch.testing.assert_close(net(images(), arch), by_hand(net, images(), arch), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", OFFERED)
def test_every_value_of_an_attribute_makes_a_difference(backbone: Backbone, name: str) -> None:
    net = awake(Supernet(backbone.model, space(), 5)).eval()
    for key, values in OFFERED[name].items():
        archs = [Arch(**{name: {"dim": (5,) * 4, key: (value,) * 4}}) for value in values]
        outs = [net(images(), arch) for arch in archs]
        for i, out in enumerate(outs):
            assert all(not torch.allclose(out, other, atol=1e-4) for other in outs[i + 1 :]), key


def test_an_attribute_left_out_is_at_its_default(backbone: Backbone) -> None:
    net = awake(Supernet(backbone.model, space(), 5)).eval()
    for name in OFFERED:
        kind = resolve("noahnas.modules", name, "module")
        told = {key: (declared.default,) * 4 for key, declared in kind.attributes.items()}
        plain, full = Arch(**{name: (5,) * 4}), Arch(**{name: {"dim": (5,) * 4, **told}})
        assert torch.equal(net(images(), plain), net(images(), full))
        assert net.params(plain) == net.params(full)


def test_a_supernet_holds_what_its_values_need_and_shares_the_rest(backbone: Backbone) -> None:
    net = Supernet(backbone.model, space(), 5)
    held = {n.removeprefix("prompts.") for n in net.trainable() if ".0." in n}
    pairs = {f"lora.0.pairs.{x}.{end}" for x in ("q", "k", "v", "proj", "fc1", "fc2")
             for end in ("down", "up")}  # fmt: skip
    four = ("down", "down_bias", "up", "up_bias")
    placed = {f"adapter.0.placed.{p}.{w}" for p in OFFERED["adapter"]["placement"] if p != "mlp"
              for w in four}  # fmt: skip
    assert held == pairs | placed | {f"adapter.0.{w}" for w in four} | {
        "lora.0.down", "lora.0.up", "vpt.0.tokens", "vpt.0.normal_tokens",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_a_network_of_one_arch_holds_just_its_slices_of_the_supernet(
    backbone: Backbone, seed: int
) -> None:
    arch = draw(np.random.default_rng(seed))
    net = awake(Supernet(backbone.model, space(), 5)).eval()
    weights, expected = net.state_dict(), net(images(), arch)
    alone = Supernet(net.backbone, arch, 5).eval()
    own = {n: p for n, p in alone.named_parameters() if n.startswith("prompts.")}
    for name, weight in own.items():
        weight.data = weights[name][tuple(slice(size) for size in weight.shape)].clone()
    alone.backbone.load_state_dict(
        {n.removeprefix("backbone."): w for n, w in weights.items() if n.startswith("backbone.")}
    )
    torch.testing.assert_close(alone(images(), arch), expected, rtol=0, atol=1e-5)
    assert net.params(arch) == alone.params(arch) == sum(p.numel() for p in own.values())
    alone(images(), arch).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in own.values())


def test_trained_weights_of_attributes_are_saved_and_loaded(
    backbone: Backbone, tmp_path: Path
) -> None:
    arch = draw(np.random.default_rng(0))
    net = awake(Supernet(backbone.model, arch, 5)).eval()
    save_trained(tmp_path / "w.safetensors", net, {})
    other = Supernet(net.backbone, arch, 5).eval()
    load_trained(tmp_path / "w.safetensors", other)
    assert all(torch.equal(p, other.trainable()[name]) for name, p in net.trainable().items())


REFUSED = [
    (Arch(lora={"dim": (1,) * 4, "alfa": (1,) * 4}),
     "lora: unknown attribute 'alfa'; did you mean 'alpha'? (known: alpha, dim, targets)"),
    (Arch(lora={"dim": (1,) * 4, "targets": ("v+q",) * 4}),
     "lora.targets must be one of 64 values such as q+v, not 'v+q'"),
    (Arch(lora={"dim": (0, 1, 1, 1), "alpha": (None, 4.0, -1.5, 4.0)}),
     "lora.alpha must lie in 0.001…10000, not -1.5"),
    (Arch(lora={"dim": (1,) * 4, "alpha": ("big",) * 4}), "lora.alpha must be a number, not 'big'"),
    (Arch(adapter={"dim": (1,) * 4, "scale": (None,) * 4}),
     "adapter.scale must be a number, not None"),
    (Arch(vpt={"dim": (1,) * 4, "init": ("xaver",) * 4}),
     "vpt.init must be one of xavier, normal, not 'xaver'"),
]  # fmt: skip


@pytest.mark.parametrize(("arch", "message"), REFUSED)
def test_what_a_module_does_not_have_is_refused(
    backbone: Backbone, arch: Arch, message: str
) -> None:
    net = Supernet(backbone.model, space(), 5)
    for attempt in (lambda: net(images(), arch), lambda: Supernet(backbone.model, arch, 5)):
        with pytest.raises(ArchError) as caught:
            attempt()
        assert message in str(caught.value)


def test_a_module_that_is_there_or_not_has_no_dim_of_two(backbone: Backbone) -> None:
    for name in ("bitfit", "ia3", "ssf"):
        with pytest.raises(ArchError, match=rf"{name}.dim is at most 1, not 2"):
            Supernet(backbone.model, Arch(**{name: (0, 2, 0, 1)}), 5)


def test_a_value_without_weights_is_refused(backbone: Backbone) -> None:
    net = Supernet(backbone.model, space({"lora": {"targets": ("q+v", "k")}}), 5)
    net(images(), Arch(lora={"dim": (0, 2, 0, 0), "targets": (None, "k", None, None)}))
    for targets in ("q", "qkv"):
        arch = Arch(lora={"dim": (0, 2, 0, 0), "targets": (None, targets, None, None)})
        with pytest.raises(ArchError, match=r"of block 1: this network holds weights for q\+v, k"):
            net(images(), arch)
    with pytest.raises(ArchError, match=r"lora.targets qkv of block 1"):
        net(images(), Arch(lora=(0, 2, 0, 0)))  # the default


# --- mixtures --------------------------------------------------------------------------------


def certain(arch: Arch, offered: Offered = OFFERED) -> tuple[dict[str, Any], dict[str, Any]]:
    """Probabilities of 0 and 1: the arch and nothing else."""
    dims = {
        m: [{d: torch.tensor(float(d == arch.dim(m, i))) for d in (0, 2, 5)} for i in range(4)]
        for m in offered
    }
    told = {
        m: {
            k: [
                {v: torch.tensor(float(v == (arch[m][k][i] if arch.dim(m, i) else values[0])))
                 for v in values}
                for i in range(4)
            ]
            for k, values in offered[m].items()
        }
        for m in offered
    }  # fmt: skip
    return dims, told


@pytest.mark.parametrize("seed", range(4))
def test_a_mixture_of_certain_values_is_that_architecture(backbone: Backbone, seed: int) -> None:
    net = awake(Supernet(backbone.model, space(), 5)).eval()
    arch = draw(np.random.default_rng(seed))
    while set(arch.modules) != set(OFFERED):
        arch = draw(np.random.default_rng(seed + 100))
    torch.testing.assert_close(
        net.mixture(images(), *certain(arch)), net(images(), arch), rtol=0, atol=2e-5
    )


def tokens_of(net: Supernet, call: Any) -> Tensor:
    """What the final norm is given of the class token, which alone is read."""
    seen: list[Tensor] = []
    handle = net.backbone.norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    call()
    handle.remove()
    return seen[0][:, :1]


@pytest.mark.parametrize("name", ["adapter", "lora"])
def test_a_mixture_in_one_branch_is_the_mean_over_every_combination(
    backbone: Backbone, name: str
) -> None:
    """Exact where what follows is linear: in the last branch of the last block."""
    offered: dict[str, tuple[Value, ...]] = (
        {"placement": ("mlp", "mlp-parallel"), "activation": ("relu", "gelu"), "scale": (1.0, 0.5)}
        if name == "adapter"
        else {"targets": ("fc2", "k+fc2"), "alpha": (None, 4.0)}
    )
    net = awake(Supernet(backbone.model, space({name: offered}), 5)).eval()
    rng = np.random.default_rng(0)

    def chances(values: tuple[Value, ...]) -> dict[Value, Tensor]:
        probabilities = rng.dirichlet([1] * len(values)).tolist()
        return {v: torch.tensor(p) for v, p in zip(values, probabilities, strict=True)}

    dims: Any = chances((0, 2, 5))
    told = {key: chances(values) for key, values in offered.items()}
    if name == "lora":  # k acts before attention, where no mean is left
        told["targets"] = {"fc2": torch.tensor(1.0), "k+fc2": torch.tensor(0.0)}
    four = {name: {key: [given] * 4 for key, given in told.items()}}
    alone = {name: [{0: torch.tensor(1.0)}] * 3 + [dims]}
    mixed = tokens_of(net, lambda: net.mixture(images(), alone, four))
    mean = torch.zeros_like(mixed)
    for (dim, p), *values in product(dims.items(), *(given.items() for given in told.values())):
        part = {k: (v,) * 4 for k, (v, _) in zip(told, values, strict=True)}
        arch = Arch(**{name: {"dim": (0, 0, 0, dim), **part}})
        weight = math.prod([q for _, q in values], start=p)
        mean = mean + weight * tokens_of(net, partial(net, images(), arch))
    torch.testing.assert_close(mixed, mean, rtol=0, atol=2e-5)


def test_gradients_of_a_mixture_reach_the_probabilities_of_every_value(backbone: Backbone) -> None:
    net = awake(Supernet(backbone.model, space(), 5)).eval()
    dims = {m: [{5: torch.tensor(0.7), 0: torch.tensor(0.3)}] * 4 for m in OFFERED}
    logits = {
        m: {k: [torch.zeros(len(v), requires_grad=True) for _ in range(4)] for k, v in told.items()}
        for m, told in OFFERED.items()
    }
    chances = {
        m: {
            k: [dict(zip(OFFERED[m][k], a.softmax(0), strict=True)) for a in alphas]
            for k, alphas in told.items()
        }
        for m, told in logits.items()
    }
    F.cross_entropy(net.mixture(images(), dims, chances), torch.tensor([0, 1, 2])).backward()
    for m, told in logits.items():
        for k, alphas in told.items():
            assert all(a.grad is not None and a.grad.abs().sum() > 1e-7 for a in alphas), (m, k)


def test_a_mixture_refuses_a_value_without_weights(backbone: Backbone) -> None:
    net = Supernet(backbone.model, space({"lora": {"targets": ("q+v", "k")}}), 5)
    half = {"lora": [{2: torch.tensor(1.0)}] * 4}
    with pytest.raises(ArchError, match=r"lora.targets qkv of block 0"):
        net.mixture(images(), half)
    with pytest.raises(ArchError, match=r"lora.targets v of block 0"):
        net.mixture(images(), half, {"lora": {"targets": [{"v": torch.tensor(1.0)}] * 4}})


# --- floating-point operations ---------------------------------------------------------------


def counted(net: Supernet, arch: Arch) -> int:
    """What torch counts in the blocks for one image, were all tokens computed in the last one."""
    vars(net.family)["read"] = lambda count: 10**6
    math = sdpa_kernel(SDPBackend.MATH)  # torch counts no fused attention on a CPU
    with math, FlopCounterMode(display=False) as counter:
        net(images(1), arch)
    total = counter.get_total_flops()
    with FlopCounterMode(display=False) as rest:
        net.family.classify(net.family.embed(images(1))[0])
    return int(total) - int(rest.get_total_flops())


def test_the_backbone_s_operations_are_those_that_torch_counts(backbone: Backbone) -> None:
    net = Supernet(backbone.model, Arch(), 5)
    assert net.shape == Shape(4, 48, 192, 17)
    assert counted(net, Arch()) == backbone_flops(net.shape) == 4 * block_flops(net.shape)


@pytest.mark.parametrize("name", list(installed("noahnas.modules")))
def test_a_module_s_operations_are_those_that_torch_counts(backbone: Backbone, name: str) -> None:
    kind = resolve("noahnas.modules", name, "module")
    dim = kind.limit or 3
    for told in settings(name):
        part = {"dim": (0, 0, 0, dim), **{k: (v,) * 4 for k, v in told.items()}}
        arch = Arch(**{name: part})
        net = Supernet(backbone.model, arch, 5)
        added = counted(net, arch) - backbone_flops(net.shape)
        assert kind.flops(net.shape, dim, **told) + written(name, dim, **told) == added, told


def written(name: str, dim: int, **told: Value) -> int:
    """Operations beyond a module's own, by which passes over the tokens are saved.

    A bias is a matrix's column for one more hidden unit; updates of q, k and v alone are written to
    the whole joint layer, with zeros. Prompts are projected once for all images.
    """
    width = 2 * 17 * 48  # of one unit, to all channels of all tokens
    if name == "lora":
        parts = {"q", "k", "v"} & set(str(told.get("targets", "")).split("+"))
        return width * dim * len(parts) * 2
    if name == "vpt":
        return linear_flops(dim, 48, 3 * 48)
    if name in ("adapter", "adapter_plus", "adaptformer"):
        return width
    return (
        width * len(resolve("noahnas.modules", name, "module").sites(**told)) * (name == "convpass")
    )
