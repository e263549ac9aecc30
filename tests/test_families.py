"""Every family of timm vision transformers, each with every module, on tiny random weights."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor
from torch.nn import functional as F

from noahnas import Arch, Supernet
from noahnas.backbone import describe, family_of, load_backbone
from noahnas.device import autocast
from noahnas.errors import BackboneError
from noahnas.prefixes import deep, tree
from noahnas.registry import installed, resolve

from .conftest import awake

SMALL: dict[str, Any] = {
    "embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "img_size": 12, "num_classes": 3,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_small_patch16_224", {}),
    "ViT, average pool": ("vit_so150m_patch16_reg4_gap_256", {}),
    "ViT, queries and keys normalised": ("vit_small_patch16_224", {"qk_norm": True}),
    "ViT, norms after layers": ("vit_base_patch16_rpn_224", {}),
    "DeiT, distilled": ("deit_tiny_distilled_patch16_224", {}),
    "DeiT III": ("deit3_small_patch16_224", {"init_values": 0.5}),
    "DINOv2": ("vit_small_patch14_dinov2", {"init_values": 0.5}),
    "DINOv2, registers": ("vit_small_patch14_reg4_dinov2", {"init_values": 0.5}),
    "DINOv2, gated": ("vit_giant_patch14_reg4_dinov2", {"mlp_ratio": 4, "init_values": 0.5}),
    "CLIP": ("vit_base_patch16_clip_224", {}),
    "SigLIP": ("vit_base_patch16_siglip_224", {}),
    "DINOv3": ("vit_small_patch16_dinov3", {"init_values": 0.5}),
    "DINOv3, gated": ("vit_7b_patch16_dinov3", {"init_values": 0.5}),
    "EVA": ("eva_giant_patch14_224", {}),
    "EVA-02, small": ("eva02_tiny_patch14_224", {}),
    "EVA-02, base": ("eva02_base_patch14_224", {}),
    "EVA-02, CLIP": ("eva02_enormous_patch14_clip_224", {}),
    "ViT, rotary": ("vit_small_patch16_rope_224", {"init_values": 0.5}),
    "ViT, rotary mixed": ("vit_small_patch16_rope_mixed_224", {"init_values": 0.5}),
    "PE": ("vit_pe_core_base_patch16_224", {}),
    "BEiT": ("beit_base_patch16_224", {"init_values": 0.5}),
    "BEiT, shared bias": (
        "beit_base_patch16_224", {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    ),
}  # fmt: skip
HYBRID = "vit_tiny_r_s16_p8_224"
EVERY = pytest.mark.parametrize("name", FAMILIES)
MODULES = list(installed("noahnas.modules"))
OFF = [m for m in MODULES if resolve("noahnas.modules", m, "module").limit == 1]


def model(name: str) -> Any:
    """A tiny model of the family whose weights are random, all of them."""
    torch.manual_seed(0)
    kind, changes = FAMILIES[name]
    made = timm.create_model(kind, **{**SMALL, **changes})
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape) * 0.2)
    return made.eval()


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1)).double()


def arch_of(*modules: str) -> Arch:
    """The modules in both blocks, where they have a choice with dims that differ."""
    return Arch(**{m: (1, 1) if m in OFF else (3, 2) for m in modules})


@cache
def network(name: str) -> Supernet:
    """All modules on a model of the family, in double precision."""
    return awake(Supernet(model(name), arch_of(*MODULES), 3)).double().eval()


# --- a forward by hand -----------------------------------------------------------------------


class Hand:
    """The forward of every family, written out; only positions and pooling are timm's own."""

    def __init__(self, net: Supernet, arch: Arch) -> None:
        self.net, self.arch, self.vit = net, arch, net.backbone
        self.special = self.vit.num_prefix_tokens

    def __call__(self, x: Tensor) -> Tensor:
        vit, angles, self.shared = self.vit, None, None
        x = vit.patch_embed(x)
        if hasattr(vit, "rel_pos_bias"):  # BEiT
            x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], 1)
            x = x if vit.pos_embed is None else x + vit.pos_embed
            self.shared = vit.rel_pos_bias() if vit.rel_pos_bias else None
        elif hasattr(vit, "rope"):  # EVA
            x, angles = vit._pos_embed(x)
            x = vit.norm_pre(x)
        else:
            x = vit.norm_pre(vit._pos_embed(x))
        self.count = x.shape[1]
        for i, block in enumerate(vit.blocks):
            mixed = angles is not None and vit.rope_mixed
            self.angles = angles[i] if mixed else angles
            self.told = {
                m: (self.net.prompts[m][i], self.arch.dim(m, i))
                for m in self.arch.modules  # type: ignore[index]
            }
            x = self.block(block, x)
        return vit.forward_head(vit.norm(x[:, : self.count]))  # type: ignore[no-any-return]

    def block(self, block: Any, x: Tensor) -> Tensor:
        if "vpt" in self.told:
            module, p = self.told["vpt"]
            x = torch.cat([x[:, : self.count], module.tokens[:p].expand(len(x), -1, -1)], 1)
        after = "PostNorm" in type(block).__name__ or "ResPost" in type(block).__name__
        for branch, run in (("attention", self.attention), ("mlp", self.mlp)):
            end = "1" if branch == "attention" else "2"
            read = x if after else self.norm(block, end, x)
            out = run(block.attn if branch == "attention" else block.mlp, read)
            out = self.norm(block, end, out) if after else out
            for scale in (f"ls{end}", f"gamma_{end}"):
                layer = getattr(block, scale, None)
                gamma = getattr(layer, "gamma", layer)
                out = out * gamma if isinstance(gamma, Tensor) else out
            x = x + self.branch(branch, read, out)
        if "adapter_plus" in self.told:
            m, h = self.told["adapter_plus"]
            x = x + m.scale * self.bottleneck(m, h, x, F.gelu)
        return x

    def norm(self, block: Any, end: str, x: Tensor) -> Tensor:
        return self.changed(f"norm{end}", x, getattr(block, f"norm{end}")(x))

    def changed(self, site: str, x: Tensor, out: Tensor) -> Tensor:
        """What BitFit, (IA)³, LoRA and SSF do at a layer, in this order."""
        if "bitfit" in self.told:
            out = out + self.told["bitfit"][0].bias[site]
        if "ia3" in self.told and site == "qkv":
            m = self.told["ia3"][0]
            out = out * torch.cat([torch.ones_like(m.key), m.key, m.value])
        if "lora" in self.told and site == "qkv":
            m, r = self.told["lora"]
            out = out + x @ m.down[:r].T @ m.up[:, :r].T
        if "ssf" in self.told:
            m = self.told["ssf"][0]
            out = out * m.scale[site] + m.shift[site]
        return out

    def bottleneck(self, m: Any, h: int, x: Tensor, f: Any) -> Tensor:
        z: Tensor = f(x @ m.down[:h].T + m.down_bias[:h]) @ m.up[:, :h].T + m.up_bias
        return z

    def branch(self, name: str, read: Tensor, out: Tensor) -> Tensor:
        def quick(h: Tensor) -> Tensor:
            return h * torch.sigmoid(1.702 * h)

        if name == "mlp" and "adapter" in self.told:
            out = out + self.bottleneck(*self.told["adapter"], out, quick)
        if name == "mlp" and "adaptformer" in self.told:
            out = out + 0.1 * self.bottleneck(*self.told["adaptformer"], read, torch.relu)
        if "convpass" in self.told:
            module, h = self.told["convpass"]
            m = getattr(module, name)
            z = quick(read @ m.down[:h].T + m.down_bias[:h])
            grid = z[:, self.special : self.count].transpose(1, 2).reshape(len(z), h, 3, 3)
            conv = F.conv2d(grid, m.conv[:h, :h], m.conv_bias[:h], padding=1)
            alone = z @ m.conv[:h, :h, 1, 1].T + m.conv_bias[:h]
            patches = conv.flatten(2).transpose(1, 2)
            z = torch.cat([alone[:, : self.special], patches, alone[:, self.count :]], 1)
            out = out + quick(z) @ m.up[:, :h].T + m.up_bias
        return out

    def attention(self, attn: Any, n: Tensor) -> Tensor:
        layers = [attn.qkv] if attn.qkv is not None else [attn.q_proj, attn.k_proj, attn.v_proj]
        out = torch.cat([n @ layer.weight.T for layer in layers], -1)
        if getattr(attn, "q_bias", None) is not None:
            out = out + torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        else:
            parts = [torch.zeros(len(x.weight)) if x.bias is None else x.bias for x in layers]
            out = out + torch.cat(parts)
        q, k, v = self.changed("qkv", n, out).chunk(3, -1)
        rows = 0
        if "prefix" in self.told:
            m, rows = self.told["prefix"]
            k = torch.cat([m.keys[:rows].expand(len(k), -1, -1), k], 1)
            v = torch.cat([m.values[:rows].expand(len(v), -1, -1), v], 1)

        def split(x: Tensor) -> Tensor:
            return x.reshape(len(x), x.shape[1], attn.num_heads, -1).transpose(1, 2)

        q, k, v = split(q), split(k), split(v)
        if hasattr(attn, "q_norm"):
            q, k = attn.q_norm(q), attn.k_norm(k)
        scores = self.turned(attn, q, 0) @ self.turned(attn, k, rows).transpose(-2, -1)
        scores = scores * attn.scale
        bias = self.shared
        if getattr(attn, "relative_position_bias_table", None) is not None:
            bias = attn._get_rel_pos_bias()[0]
        if bias is not None:
            scores = scores.clone()
            scores[:, :, : self.count, rows : rows + self.count] += bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        mixed = attn.norm(mixed) if hasattr(attn, "norm") else mixed
        return self.changed("proj", mixed, attn.proj(mixed))

    def turned(self, attn: Any, x: Tensor, first: int) -> Tensor:
        """Patches turned by their angles; they begin after `first` keys of a prefix."""
        if self.angles is None:
            return x
        begin, end = first + self.special, first + self.count
        patches = apply_rot_embed_cat(x[:, :, begin:end], self.angles, half=attn.rotate_half)
        return torch.cat([x[:, :, :begin], patches, x[:, :, end:]], 2)

    def mlp(self, mlp: Any, n: Tensor) -> Tensor:
        if hasattr(mlp, "fc1"):
            h = self.changed("fc1", n, mlp.fc1(n))
        else:
            h = self.changed("fc1", n, torch.cat([mlp.fc1_g(n), mlp.fc1_x(n)], -1))
        if h.shape[-1] == mlp.fc2.in_features:
            h = mlp.act(h)
        else:
            first, second = h.chunk(2, -1)
            last = getattr(mlp, "gate_last", False)
            h = first * mlp.act(second) if last else mlp.act(first) * second
        h = mlp.norm(h)
        h = h * self.told["ia3"][0].hidden if "ia3" in self.told else h
        return self.changed("fc2", h, mlp.fc2(h))


# --- what holds for each family --------------------------------------------------------------


def untouched(name: str, net: Supernet) -> Any:
    """The family's model made anew, with the network's classifiers and nothing else of it.

    Frozen, too: for a bias of positions that is trained PyTorch takes another attention.
    """
    plain = model(name).requires_grad_(False)
    for key, head in zip(net.family.heads, net.heads, strict=True):
        getattr(plain, key).load_state_dict(head.state_dict())
    return plain.eval()


@EVERY
def test_an_arch_with_nothing_in_it_is_the_timm_model_bit_for_bit(name: str) -> None:
    """A model of timm's own, which no supernet ever held; other archs have run before."""
    net = awake(Supernet(model(name), arch_of(*MODULES), 3)).train()
    net(images().float(), arch_of(*MODULES)).sum().backward()
    net.eval()
    with torch.inference_mode():
        net(images().float(), arch_of(*MODULES))
    plain, x = untouched(name, net), images().float()
    for fused in (True, False):
        for block in (*net.backbone.blocks, *plain.blocks):
            block.attn.fused_attn = fused
        assert torch.equal(net(x, Arch()), plain(x))
        assert torch.equal(net.backbone(x), plain(x))


@EVERY
def test_a_search_evaluates_an_arch_with_nothing_in_it_as_the_timm_model(name: str) -> None:
    """Bit for bit to the last block, which computes what the classifier reads alone.

    Where the classifier reads all tokens, its logits are timm's to the last bit, too.
    """
    net = awake(Supernet(model(name), arch_of(*MODULES), 3)).eval()
    plain, x = untouched(name, net), images().float()
    seen: list[Tensor] = []  # what enters the last block
    for vit in (net.backbone, plain):
        vit.blocks[-1].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    archs = [arch_of(*MODULES), Arch()]
    with torch.inference_mode():
        logits = dict(deep(net, [x], tree(net, archs)))[Arch()]
        theirs = plain(x)
    count = net.family.read(net.shape.tokens)
    assert torch.equal(seen[-2][:, :count], seen[-1][:, :count])
    if count == net.shape.tokens:
        assert torch.equal(logits, theirs)
    torch.testing.assert_close(logits, theirs, rtol=0, atol=1e-5)
    labels = torch.tensor([0, 1])
    losses = [F.cross_entropy(out.double(), labels).item() for out in (logits, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@EVERY
@pytest.mark.parametrize("module", MODULES)
def test_each_module_equals_a_forward_written_by_hand(name: str, module: str) -> None:
    net, arch = network(name), arch_of(module)
    out = net(images(), arch)
    torch.testing.assert_close(out, Hand(net, arch)(images()), rtol=0, atol=1e-9)
    assert not torch.allclose(out, net(images(), Arch()), atol=1e-3)


@EVERY
def test_all_modules_together_equal_a_forward_written_by_hand(name: str) -> None:
    net, arch = network(name), arch_of(*MODULES)
    for blocks in net.backbone.blocks:
        blocks.attn.fused_attn = False
    slow = net(images(), arch)
    for blocks in net.backbone.blocks:
        blocks.attn.fused_attn = True
    torch.testing.assert_close(slow, Hand(net, arch)(images()), rtol=0, atol=1e-9)
    torch.testing.assert_close(net(images(), arch), slow, rtol=0, atol=1e-9)


def test_patches_may_be_made_by_a_network() -> None:
    torch.manual_seed(0)
    made = timm.create_model(HYBRID, **{**SMALL, "patch_size": 8, "img_size": 96})
    net = awake(Supernet(made, arch_of(*MODULES), 3)).double().eval()
    x, arch = torch.randn(1, 3, 96, 96).double(), arch_of(*MODULES)
    assert torch.equal(net(x, Arch()), net.backbone(x))
    torch.testing.assert_close(net(x, arch), Hand(net, arch)(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@EVERY
def test_gradients_reach_every_live_weight_and_no_frozen_one(name: str, precision: str) -> None:
    net = awake(Supernet(model(name), arch_of(*MODULES), 3)).train()
    with autocast(torch.device("cpu"), precision):
        logits = net(images().float(), arch_of(*MODULES))
        loss = F.cross_entropy(logits, torch.tensor([0, 1]))
    loss.backward()
    for key, weight in net.named_parameters():
        live = key.startswith(("prompts.", "backbone.head.", "backbone.head_dist."))
        assert (weight.grad is not None and bool(weight.grad.any())) == live, key


@EVERY
def test_a_mixture_of_certain_dims_is_that_architecture(name: str) -> None:
    net, arch = network(name), arch_of(*MODULES)
    dims = {
        m: [
            {d: torch.tensor(float(d == arch.dim(m, i))).double() for d in {0, 1, arch.dim(m, i)}}
            for i in range(2)
        ]
        for m in MODULES
    }
    torch.testing.assert_close(net.mixture(images(), dims), net(images(), arch), rtol=0, atol=1e-9)


@EVERY
def test_a_forward_in_reduced_precision_is_near_the_full_one(name: str) -> None:
    net = awake(Supernet(model(name), arch_of(*MODULES), 3)).eval()
    x, arch = images().float(), arch_of(*MODULES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x, arch).float()
    torch.testing.assert_close(out, net(x, arch), rtol=0, atol=0.05)


@EVERY
def test_no_state_survives_a_call_even_one_that_fails(name: str) -> None:
    net = awake(Supernet(model(name), arch_of(*MODULES), 3)).eval()

    def state() -> list[Any]:
        hooks = ("_forward_hooks", "_forward_pre_hooks")
        return [
            (key, [len(getattr(m, h)) for h in hooks], sorted(vars(m)), vars(m).get("qkv"))
            for key, m in net.backbone.named_modules()
        ] + [vars(block.attn).get("qkv_bias_separate") for block in net.backbone.blocks]

    before, plain = state(), net.backbone(images().float())
    net(images().float(), arch_of(*MODULES))
    assert state() == before
    broken: Any = net.prompts["convpass"][1]  # type: ignore[index]
    broken.mlp.up.data = torch.zeros(7, 7)  # does not fit: the block will raise
    with pytest.raises(RuntimeError):
        net(images().float(), arch_of(*MODULES))
    assert state() == before
    assert torch.equal(net.backbone(images().float()), plain)


@EVERY
def test_prompts_have_no_position_and_are_not_pooled(name: str) -> None:
    """Their order does not matter, and those that nothing attends to change nothing."""
    net = awake(Supernet(model(name), Arch(vpt=(3, 3)), 3)).double().eval()
    arch = Arch(vpt=(3, 3))
    out = net(images(), arch)
    for block in net.prompts["vpt"]:
        block.tokens.data = block.tokens.data.flip(0)
    torch.testing.assert_close(net(images(), arch), out, rtol=0, atol=1e-9)
    plain = net.backbone(images())
    assert not torch.allclose(out, plain, atol=1e-3)
    seen: list[Tensor] = []
    hook = net.backbone.norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    net(images(), arch)
    hook.remove()
    assert seen[0].shape[1] == net.family.read(net.shape.tokens)
    torch.testing.assert_close(unattended(net), plain, rtol=0, atol=1e-9)


def unattended(net: Supernet) -> Tensor:
    """Logits (B, classes) with prompts behind the tokens in every block, hidden from attention."""
    state = net.begin(images())
    rows = net.prompts["vpt"][0].tokens.expand(len(state.tokens), -1, -1)  # type: ignore[index]
    x = torch.cat([state.tokens, rows], 1)  # (B, N + p, D)
    hidden = torch.full((1, 1, 1, rows.shape[1]), -torch.inf).double()
    mask = F.pad(hidden, (state.count, 0))  # (1, 1, 1, N + p)
    for index in range(net.blocks):
        with net.family.acting(index, []):
            x = net.family.run(index, x, state.positions, count=state.count, mask=mask)
    return net.family.classify(x[:, : state.count])  # (B, N, D) -> (B, classes)


@EVERY
def test_the_shape_tells_what_the_model_is(name: str) -> None:
    net = network(name)
    mlp = net.backbone.blocks[0].mlp
    first = mlp.fc1.out_features if hasattr(mlp, "fc1") else 2 * mlp.fc1_g.out_features
    assert (net.shape.blocks, net.shape.width) == (2, 16)
    assert (net.shape.hidden, net.shape.fc1) == (mlp.fc2.in_features, first)
    assert net.shape.tokens == net.backbone.forward_features(images()).shape[1]


@EVERY
def test_the_head_is_all_that_the_model_classifies_with(name: str) -> None:
    net = network(name)
    widths = [head.in_features for head in net.heads]  # type: ignore[attr-defined]
    assert widths == [16] * (2 if "distilled" in name else 1)
    assert sum(p.numel() for p in net.head.parameters()) == len(widths) * 17 * 3
    features = net.backbone.forward_head(net.backbone.forward_features(images()), pre_logits=True)
    assert features.shape == (2, 16)  # what the linear probe reads


@EVERY
def test_weights_from_a_file_are_the_model_s_and_lacking_ones_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, changes = FAMILIES[name]
    original, create = model(name), timm.create_model
    # A file's architecture is named, and names stand for the published sizes; here it is tiny.
    monkeypatch.setattr(timm, "create_model", lambda n, **k: create(n, **{**SMALL, **changes, **k}))
    state = {k: v.contiguous() for k, v in original.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_backbone(f"{kind}@{tmp_path / 'w.safetensors'}")
    x = images().float()
    assert torch.equal(
        loaded.model.eval().forward_features(x),  # type: ignore[operator]
        original.forward_features(x),
    )
    assert loaded.preprocess.mean == describe(original, kind).preprocess.mean
    for part in ("blocks.1.", "fc_norm.", "attn_pool.", "norm.", "cls_token"):
        held = [k for k in state if k.startswith(part)]
        if held:
            save_file({k: v for k, v in state.items() if k not in held}, tmp_path / "l.safetensors")
            with pytest.raises(BackboneError, match=r"lacks|does not fit"):
                load_backbone(f"{kind}@{tmp_path / 'l.safetensors'}")


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("vit_base_mci_224", None, "it has batch norms"),
        ("vitamin_small_224", None, "its MLP GeGluMlp is not supported: it has no layer `fc2`"),
        ("vit_small_patch16_18x2_224", SMALL,
         "its ParallelThingsBlock blocks are not supported; Block and ResPostBlock are"),
        ("resnet10t", None, "ResNet is not supported: it has no transformer blocks"),
        ("swin_tiny_patch4_window7_224", None,
         "SwinTransformer is not supported: its transformer blocks lie in layers.0.blocks, "
         "layers.1.blocks, layers.2.blocks …, not in one list `blocks`"),
        ("hiera_tiny_224", None,
         "Hiera is not supported: how this class embeds images and runs its blocks (HieraBlock "
         "with MaskUnitAttention) is not known here; supported are timm's VisionTransformer, Eva"),
        ("vit_small_patch16_224", {"global_pool": ""}, "it pools nothing"),
        ("beit_base_patch16_224", {"global_pool": ""}, "it pools nothing"),
        ("vit_small_patch16_dinov3", {"patch_drop_rate": 0.5}, "it drops patches while training"),
        ("vit_small_patch16_rope_224",
         {"qkv_fused": False, "num_kv_heads": 1}, "grouped queries"),
        ("vit_small_patch16_224", {"in_chans": 1}, "takes 1 channels"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_supported_says_why(
    kind: str, changes: dict[str, Any] | None, reason: str
) -> None:
    made = timm.create_model(kind, **({} if changes is None else {**SMALL, **changes}))
    with pytest.raises(BackboneError) as caught:
        family_of(made, kind)
    assert reason in str(caught.value)


def test_a_module_that_is_no_timm_model_is_refused_by_its_class() -> None:
    with pytest.raises(BackboneError, match="mine: Linear is not supported: it has no transformer"):
        family_of(torch.nn.Linear(3, 3), "mine")


def test_a_model_whose_attention_is_narrower_than_its_tokens_says_so() -> None:
    made: Any = timm.create_model("vit_small_patch16_224", **SMALL)
    made.blocks[1].attn.proj = torch.nn.Linear(8, 16)
    with pytest.raises(BackboneError, match="its attention is 8 wide, its tokens 16"):
        family_of(made, "narrow")


def test_the_page_on_backbones_names_each_family_s_model() -> None:
    page = (Path(__file__).parents[1] / "docs" / "backbones.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", "".join(x for x in page.splitlines() if x[:1] == "|")))
    assert named == {kind for kind, _ in FAMILIES.values()} | {HYBRID}
