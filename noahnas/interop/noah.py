"""Weights of NOAH's original code (github.com/ZhangYuanhan-AI/NOAH)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from noahnas.errors import BackboneError
from noahnas.space import ModuleSpace, Space
from noahnas.supernet import Supernet

_RENAMED = {
    "adapter.ln1.weight": "adapter.{}.down",
    "adapter.ln1.bias": "adapter.{}.down_bias",
    "adapter.ln2.weight": "adapter.{}.up",
    "adapter.ln2.bias": "adapter.{}.up_bias",
    "attn.LoRA_a.weight": "lora.{}.down",
    "attn.LoRA_b.weight": "lora.{}.up",
    "visual_prompt_token": "vpt.{}.tokens",
}
_DEAD = ("visual_prompt_token", "visual_prompt_token_pos_embed")  # block 0 replaces them
_ALIAS = re.compile(r"\.(sampled_\w+|samples\.\w+)$")  # views that were saved beside their tensor


def renamed(key: str) -> str | None:
    """Our name of an original parameter; None if it is dead or an alias."""
    if key in _DEAD or _ALIAS.search(key):
        return None
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
        ours = _RENAMED.get(match[2])
        if ours:
            return "prompts." + ours.format(match[1])
    return f"backbone.{key}"


def supernet_from_state_dict(state: Mapping[str, Tensor], *, num_heads: int) -> Supernet:
    """Our Supernet with the weights of an original NOAH supernet.

    Args:
        state: its state dict. Aliases of sampled weights and the dead top-level prompt are
            ignored.
        num_heads: attention heads, which no shape tells (12 for ViT-B/16).

    Returns:
        A supernet whose space has every dim from 0 to the largest in every block, in eval mode.

    Raises:
        BackboneError: if a weight is missing, unknown or of another shape.
    """
    ours = {name: tensor for key, tensor in state.items() if (name := renamed(key))}
    try:
        width, channels, patch, _ = ours["backbone.patch_embed.proj.weight"].shape
        tokens, classes = ours["backbone.pos_embed"].shape[1], ours["backbone.head.weight"].shape[0]
        hidden = ours["backbone.blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as e:
        raise BackboneError(f"the state dict is no NOAH supernet: it lacks {e}") from None
    depth = 1 + max(int(m[1]) for key in ours if (m := re.match(r"backbone\.blocks\.(\d+)\.", key)))
    vit = VisionTransformer(
        img_size=round((tokens - 1) ** 0.5) * patch,
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=hidden / width,
        qkv_bias="backbone.blocks.0.attn.qkv.bias" in ours,
        num_classes=0,
    )
    most = {
        "adapter": ours.get("prompts.adapter.0.down"),
        "lora": ours.get("prompts.lora.0.down"),
    }
    ours |= {k: v[0] for k, v in ours.items() if k.endswith(".tokens")}  # (1, p, D) -> (p, D)
    most["vpt"] = ours.get("prompts.vpt.0.tokens")
    space = Space(
        "noah-import",
        {k: ModuleSpace(tuple(range(len(v) + 1))) for k, v in most.items() if v is not None},
    )
    supernet = Supernet(vit, space, classes)
    try:
        supernet.load_state_dict({k: torch.as_tensor(v) for k, v in ours.items()})
    except RuntimeError as e:
        raise BackboneError(f"the state dict does not fit: {e}") from e
    return supernet.eval()
