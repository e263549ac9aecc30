from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas import Arch, Space, Supernet
from noahnas.backbone import Backbone
from noahnas.errors import ArchError, BackboneError, SpaceError
from noahnas.modules import PromptModule
from noahnas.modules.adapter import Adapter
from noahnas.modules.asked import kind_of
from noahnas.modules.lora import LoRA
from noahnas.space.schema import Value

from .conftest import FULL, awake


def images(count: int = 3, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def by_hand(net: Supernet, x: Tensor, arch: Arch) -> Tensor:
    """The forward written out from the paper, sharing nothing with Supernet.forward."""
    vit: Any = net.backbone
    x = vit._pos_embed(vit.patch_embed(x))
    count = x.shape[1]
    for i, block in enumerate(vit.blocks):
        p, r, h = (arch.dim(name, i) for name in ("vpt", "lora", "adapter"))
        if p:
            prompts = net.prompts["vpt"][i].tokens[:p].expand(len(x), -1, -1)
            x = torch.cat([x[:, :count], prompts], 1)
        n = block.norm1(x)
        qkv = block.attn.qkv(n)
        if r:
            lora = net.prompts["lora"][i]
            qkv = qkv + n @ lora.down[:r].T @ lora.up[:, :r].T
        b, tokens, width = x.shape
        heads = block.attn.num_heads
        q, k, v = qkv.view(b, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * (width // heads) ** -0.5).softmax(-1) @ v
        x = x + block.attn.proj(mixed.transpose(1, 2).reshape(b, tokens, width))
        m = block.mlp(block.norm2(x))
        if h:
            adapter = net.prompts["adapter"][i]
            z = m @ adapter.down[:h].T + adapter.down_bias[:h]
            z = z * torch.sigmoid(1.702 * z)
            m = m + z @ adapter.up[:, :h].T + adapter.up_bias
        x = x + m
    return vit.head(vit.norm(x[:, :count])[:, 0])


@pytest.mark.parametrize(
    "arch",
    [
        FULL,
        Arch(vpt=(2, 0, 3, 0)),
        Arch(lora=(1, 2, 4, 8)),
        Arch(adapter=(0, 3, 0, 8)),
        Arch(vpt=(1, 0, 0, 2), lora=(0, 5, 0, 0), adapter=(8, 1, 0, 0)),
    ],
    ids=str,
)
def test_the_forward_equals_one_written_by_hand(backbone: Backbone, arch: Arch) -> None:
    net = awake(Supernet(backbone.model, Space.load("tiny"), 5)).eval()
    torch.testing.assert_close(net(images(), arch), by_hand(net, images(), arch), rtol=0, atol=1e-5)
    assert not torch.allclose(net(images(), arch), net(images(), Arch()), atol=1e-3)


def certain(arch: Arch, net: Supernet) -> dict[str, list[dict[int, Tensor]]]:
    """Probabilities of 0 and 1: the arch and nothing else."""
    return {
        name: [
            {dim: torch.tensor(float(dim == arch.dim(name, i))) for dim in (0, 1, 2, 4, 8)}
            for i in range(net.blocks)
        ]
        for name in net.largest.modules
    }


@pytest.mark.parametrize("seed", range(8))
def test_a_mixture_of_certain_dims_is_that_architecture(backbone: Backbone, seed: int) -> None:
    net = awake(Supernet(backbone.model, Space.load("tiny"), 5)).eval()
    rng = np.random.default_rng(seed)
    arch = Arch(**{m: rng.choice([0, 0, 1, 2, 4, 8], size=4).tolist() for m in net.largest.modules})
    mixed = net.mixture(images(), certain(arch, net))
    torch.testing.assert_close(mixed, net(images(), arch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vpt", "prefix"])
def test_a_token_twice_with_probability_a_half_is_that_token_once(
    backbone: Backbone, name: str
) -> None:
    net: Any = awake(Supernet(backbone.model, Arch(**{name: (2,) * 4}), 5)).eval()
    for module in net.prompts[name]:
        for weight in module.parameters():
            weight.data[1] = weight.data[0]
    half = [{0: torch.tensor(0.5), 2: torch.tensor(0.5)}] + [{2: torch.tensor(1.0)}] * 3
    once = net(images(), Arch(**{name: (1, 2, 2, 2)}))
    torch.testing.assert_close(net.mixture(images(), {name: half}), once, rtol=0, atol=1e-5)
    assert not torch.allclose(once, net(images(), Arch(**{name: (2,) * 4})), atol=1e-3)


def test_a_mixture_wider_than_the_weights_is_refused(backbone: Backbone) -> None:
    net = Supernet(backbone.model, Arch(lora=(2, 2, 2, 2)), 5)
    wide = {"lora": [{2: torch.tensor(1.0)}] * 3 + [{3: torch.tensor(1.0)}]}
    with pytest.raises(ArchError, match="lora 3 of block 3 is wider"):
        net.mixture(images(), wide)


def test_gradients_of_a_mixture_reach_the_probabilities_of_every_module(
    backbone: Backbone,
) -> None:
    net = awake(Supernet(backbone.model, Space.load("tiny"), 5)).eval()
    logits = {
        m: [torch.zeros(3, requires_grad=True) for _ in range(4)] for m in net.largest.modules
    }
    weights = {
        m: [dict(zip((0, 2, 8), a.softmax(0), strict=True)) for a in alphas]
        for m, alphas in logits.items()
    }
    F.cross_entropy(net.mixture(images(), weights), torch.tensor([0, 1, 2])).backward()
    for name, alphas in logits.items():
        assert all(a.grad is not None and a.grad.abs().sum() > 1e-6 for a in alphas), name


def test_an_arch_with_nothing_in_it_is_the_timm_model_bit_for_bit(backbone: Backbone) -> None:
    net = awake(Supernet(backbone.model, Space.load("tiny"), 5))
    for mode in (True, False):
        net.train(mode)
        assert torch.equal(net(images(), Arch()), net.backbone(images()))


def test_no_state_survives_a_call_even_one_that_fails(backbone: Backbone) -> None:
    net = awake(Supernet(backbone.model, Space.load("tiny"), 5)).eval()
    before = net.backbone(images())
    net(images(), FULL)
    assert torch.equal(net.backbone(images()), before)
    net.prompts["adapter"][2].down.data = torch.zeros(8, 7)  # does not fit: the block will raise
    with pytest.raises(RuntimeError):
        net(images(), FULL)
    assert torch.equal(net.backbone(images()), before)


def test_at_drop_path_one_a_block_adds_the_adapter_of_zero() -> None:
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=48, depth=2, num_heads=4, drop_path_rate=1.0
    )
    net = awake(Supernet(vit, Arch(adapter=(0, 4)), 5)).train()
    seen: dict[str, Tensor] = {}
    last: nn.Module = vit.blocks[1]  # the rate grows linearly: 0.0, then 1.0
    last.register_forward_hook(lambda _m, args, out: seen.update(x=args[0], out=out))
    net(images(), Arch(adapter=(0, 4)))
    adapter: Any = net.prompts["adapter"][1]
    h = adapter.down_bias * torch.sigmoid(1.702 * adapter.down_bias)
    expected = seen["x"] + F.linear(h, adapter.up, adapter.up_bias)
    torch.testing.assert_close(seen["out"], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(seen["out"], seen["x"], atol=1e-3)


def test_gradients_reach_every_live_weight_and_no_frozen_one(backbone: Backbone) -> None:
    net = awake(Supernet(backbone.model, Space.load("tiny"), 5)).train()
    net(images(), FULL).square().sum().backward()
    for name, weight in net.named_parameters():
        live = name.startswith(("prompts.", "backbone.head."))
        assert (weight.grad is not None and bool(weight.grad.any())) == live, name
    assert set(net.trainable()) == {
        n for n, p in net.named_parameters() if n.startswith(("prompts.", "backbone.head."))
    }


def test_params_equal_the_space_s_and_the_weights_of_a_network_of_that_arch_alone(
    backbone: Backbone, space: Space
) -> None:
    arch = Arch(vpt=(1, 2, 4, 8), lora=(8, 4, 0, 0), adapter=(2, 0, 0, 0))
    net = Supernet(backbone.model, arch, 5)
    stored = sum(p.numel() for n, p in net.trainable().items() if n.startswith("prompts."))
    assert net.params(arch) == space.params(arch) == stored


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (Arch(lora=(1, 1)), "the arch has 2 blocks, the backbone 4"),
        (Arch(lora={"dim": (1,) * 4, "alfa": (1,) * 4}), "unknown attribute 'alfa'"),
        (Arch(lora=(9, 0, 0, 0)), "wider than this network's weights"),
        (Arch(prefix=(1, 0, 0, 0)), "wider than this network's weights"),
    ],
)
def test_an_arch_without_weights_is_refused(backbone: Backbone, arch: Arch, message: str) -> None:
    net = Supernet(backbone.model, Space.load("tiny"), 5)
    with pytest.raises(ArchError) as caught:
        net(images(), arch)
    assert message in str(caught.value)


def test_a_space_deeper_than_the_backbone_is_refused(backbone: Backbone) -> None:
    with pytest.raises(SpaceError, match="exceeds the backbone's 4 blocks"):
        Supernet(backbone.model, Space.load("noah-vtab"), 5)


class Half(PromptModule):
    """A module that its author has not finished."""

    name = "half"


class Lost(Adapter):
    """A module whose author has mistyped where it acts."""

    name = "half"

    @staticmethod
    def sites(**attributes: Value) -> Any:
        return ("atention",)


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (nn.Linear, "module 'half' is no noahnas.modules.PromptModule"),
        (Half, "module 'half': Half does not define flops, forward, params, sites"),
        (LoRA, "module 'half': LoRA has another `name`"),
        (Lost, "module 'half': unknown site 'atention'; did you mean 'attention'?"),
    ],
)
def test_an_unfinished_module_is_an_error_that_says_what_it_lacks(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, installed: Any, message: str
) -> None:
    """What is installed cannot be changed within a test; its look-up is."""
    kind_of.cache_clear()
    monkeypatch.setattr("noahnas.modules.asked.resolve", lambda *_: installed)
    with pytest.raises(ArchError) as caught:
        Supernet(backbone.model, Arch(half=(1, 0, 0, 0)), 5)
    kind_of.cache_clear()
    assert message in str(caught.value)


def test_a_copy_shares_nothing_with_the_original(backbone: Backbone) -> None:
    net = awake(Supernet(backbone.model, FULL, 5)).eval()
    before = net(images(), FULL)
    other = copy.deepcopy(net)
    assert torch.equal(other(images(), FULL), before)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert torch.equal(net(images(), FULL), before)
    assert not other(images(), FULL).any()


def test_a_model_that_is_not_supported_is_refused_with_the_reason() -> None:
    vit = timm.models.vision_transformer
    tiny: dict[str, Any] = {
        "img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2,
    }  # fmt: skip
    for model, reason in (
        (timm.create_model("resnet10t"), "ResNet is not supported: it has no transformer blocks"),
        (vit.VisionTransformer(**tiny, global_pool=""), "it pools nothing"),
        (vit.VisionTransformer(**tiny, in_chans=1), "takes 1 channels"),
        (vit.VisionTransformer(**tiny, patch_drop_rate=0.5), "load it with patch_drop_rate=0"),
        (vit.VisionTransformer(**tiny, block_fn=vit.ParallelThingsBlock),
         "its ParallelThingsBlock blocks are not supported"),
        (vit.VisionTransformer(**tiny, attn_layer="diff"), "its attention DiffAttention"),
    ):  # fmt: skip
        with pytest.raises(BackboneError) as caught:
            Supernet(model, Arch(), 2)
        assert reason in str(caught.value)


def test_layer_scale_and_register_tokens_are_left_alone() -> None:
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, init_values=0.5,
        reg_tokens=2, no_embed_class=True, pre_norm=True,
    )  # fmt: skip
    net = awake(Supernet(vit, Arch(vpt=(2, 0), lora=(1, 1), adapter=(1, 1)), 3)).eval()
    assert torch.equal(net(images(), Arch()), vit(images()))
    arch = Arch(vpt=(2, 0), lora=(1, 1), adapter=(1, 1))
    assert not torch.allclose(net(images(), arch), vit(images()), atol=1e-3)
