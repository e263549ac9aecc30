"""What peft also holds computes the same: LoRA, (IA)³, and the size of a prefix."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import timm
import torch
from torch import Tensor, nn

from noahnas import Arch, Supernet
from noahnas.registry import resolve
from noahnas.space import Shape

from .conftest import awake

TOLERANCE = 1e-6  # absolute, in fp32
DEPTH, WIDTH, HIDDEN = 2, 16, 64


def split_vit() -> nn.Module:
    """A vision transformer whose queries, keys and values have layers of their own."""
    torch.manual_seed(0)
    model: nn.Module = timm.models.eva.Eva(
        img_size=16, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=2, num_classes=3,
        qkv_fused=False,
    )  # fmt: skip
    return loud(model)


def joint_vit() -> nn.Module:
    torch.manual_seed(0)
    return loud(
        timm.models.vision_transformer.VisionTransformer(
            img_size=16, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=2, num_classes=3
        )
    )


def loud(model: nn.Module) -> nn.Module:
    """Weights that do something: fresh ones hardly move the tokens."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.2)
    return model.eval()


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def supernet(model: nn.Module, arch: Arch) -> Supernet:
    """The same backbone and classifier with the arch's modules, all weights drawn anew."""
    state = copy.deepcopy(model.state_dict())
    net = awake(Supernet(copy.deepcopy(model), arch, 3)).eval()
    net.backbone.load_state_dict(state)
    return net


def weights(theirs: nn.Module) -> dict[str, Tensor]:
    prefix, suffix = "base_model.model.blocks.", ".default"
    return {
        n.removeprefix(prefix).replace(suffix, "").removesuffix(".weight"): p
        for n, p in theirs.named_parameters()
        if n.startswith(prefix)
    }


LAYERS = {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj", "proj": "attn.proj",
          "fc1": "mlp.fc1", "fc2": "mlp.fc2", "qkv": "attn.qkv"}  # fmt: skip


@pytest.mark.parametrize("alpha", [8.0, 3.0])
@pytest.mark.parametrize("targets", ["qkv", "q+v", "k", "proj+fc1", "q+k+v+proj+fc1+fc2"])
def test_lora_agrees_with_peft(targets: str, alpha: float) -> None:
    model = joint_vit() if targets == "qkv" else split_vit()
    told = {"dim": (4,) * DEPTH, "targets": (targets,) * DEPTH, "alpha": (alpha,) * DEPTH}
    arch = Arch(lora=told)
    net: Any = supernet(model, arch)
    names = [LAYERS[layer] for layer in targets.split("+")]
    config = peft.LoraConfig(
        r=4, lora_alpha=alpha, lora_dropout=0.0, target_modules=rf"blocks\.\d+\.({'|'.join(names)})"
    )
    theirs = peft.get_peft_model(copy.deepcopy(model), config).eval()
    given = weights(theirs)
    with torch.no_grad():
        for block in range(DEPTH):
            for layer in targets.split("+"):
                ours = net.prompts["lora"][block]
                pair = ours if layer == "qkv" else ours.pairs[layer]
                given[f"{block}.{LAYERS[layer]}.lora_A"].copy_(pair.down)
                given[f"{block}.{LAYERS[layer]}.lora_B"].copy_(pair.up)
    torch.testing.assert_close(net(images(), arch), theirs(images()), rtol=0, atol=TOLERANCE)
    assert not torch.allclose(theirs(images()), model(images()), atol=1e-2)
    trainable = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trainable == net.params(arch)


def test_ia3_agrees_with_peft() -> None:
    model, arch = split_vit(), Arch(ia3=(1,) * DEPTH)
    net: Any = supernet(model, arch)
    config = peft.IA3Config(
        target_modules=r"blocks\.\d+\.(attn\.k_proj|attn\.v_proj|mlp\.fc2)",
        feedforward_modules=r"blocks\.\d+\.mlp\.fc2",
    )
    theirs = peft.get_peft_model(copy.deepcopy(model), config).eval()
    given = weights(theirs)
    with torch.no_grad():
        for block in range(DEPTH):
            ours = net.prompts["ia3"][block]
            given[f"{block}.attn.k_proj.ia3_l"].copy_(ours.key[:, None])
            given[f"{block}.attn.v_proj.ia3_l"].copy_(ours.value[:, None])
            given[f"{block}.mlp.fc2.ia3_l"].copy_(ours.hidden[None])
    torch.testing.assert_close(net(images(), arch), theirs(images()), rtol=0, atol=TOLERANCE)
    assert not torch.allclose(theirs(images()), model(images()), atol=1e-2)
    trainable = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trainable == net.params(arch)


def test_a_prefix_has_as_many_parameters_as_peft_s() -> None:
    """peft's prefixes are for language models with a cache; only their size can be compared."""
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=5, token_dim=WIDTH, num_layers=DEPTH,
        num_attention_heads=2,
    )  # fmt: skip
    encoder = peft.PrefixEncoder(config)
    shape = Shape(DEPTH, WIDTH, HIDDEN, 5)
    ours = DEPTH * resolve("noahnas.modules", "prefix", "module").params(shape, 5)
    assert ours == sum(p.numel() for p in encoder.parameters())
