"""Families of timm vision transformers, each taken apart alike: embed, run a block, classify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.models import beit, eva
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from noahnas.backbone.hooks import Act, acting, reading
from noahnas.backbone.short import suits
from noahnas.errors import BackboneError
from noahnas.modules.base import Layout
from noahnas.space.schema import Shape


class Family:
    """A timm vision transformer whose forward can be run piece by piece.

    Tokens are in timm's order: class, distillation and register tokens, then patches. What is put
    behind them takes part in attention without a position, and leaves before the final norm and
    the pooling.

    Args:
        model: the timm model; its code and its weights are left alone.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def shape(self) -> Shape:
        """What of the model decides the price of prompt modules."""
        return Shape.of(self.model)

    @property
    def heads(self) -> list[str]:
        """Names of the model's classifiers."""
        return [name for name in ("head", "head_dist") if hasattr(self.model, name)]

    def layout(self, images: Tensor) -> Layout:
        """Which of the tokens of these images are which."""
        rows, columns = self.model.patch_embed.dynamic_feat_size(images.shape[2:])
        return Layout(self.model.num_prefix_tokens, rows, columns)

    def embed(self, images: Tensor) -> tuple[Tensor, Any]:
        """(B, 3, H, W) -> tokens (B, N, D), and the positions that blocks take beside them."""
        model = self.model
        x = model._pos_embed(model.patch_embed(images))  # (B, N, D)
        return model.norm_pre(model.patch_drop(x)), None

    def acting(
        self, index: int, acts: Sequence[Act], *, fold: bool = False
    ) -> AbstractContextManager[None]:
        """A context in which prompt modules act in a block, however often it runs.

        `fold` puts what can be put there into the layers' weights; no gradient may be recorded.
        """
        return acting(self.model.blocks[index], acts, fold=fold)

    def run(
        self,
        index: int,
        x: Tensor,
        positions: Any,
        *,
        count: int,
        prefix: Sequence[Tensor] = (),
        prompts: Sequence[Tensor] = (),
        mask: Tensor | None = None,
        wanted: int | None = None,
    ) -> Tensor:
        """One block, as it is or as `acting` changes it.

        Args:
            index: of the block.
            x: the model's own `count` tokens, and p prompts after them (B, count + p, D).
            positions: as `embed` gave them.
            count: tokens of the model's own.
            prefix: keys and values (b, p', 2D) for attention alone; b is B, or 1.
            prompts: tokens (b, p'', D) that nobody asks for after the block.
            mask: what is added to the attention to each key, (1, 1, 1, count + p + p').
            wanted: how many of the tokens are computed, from the first; all of them if not given.

        Returns:
            (B, count + p, D), or (B, wanted, D).
        """
        block = self.model.blocks[index]
        more = x.shape[1] - count + sum(rows.shape[1] for rows in (*prefix, *prompts))
        arguments = self._arguments(index, positions, more, mask)
        full = x if wanted is not None and wanted < x.shape[1] else None
        other = full is not None or more or (positions is None and suits(block.attn, x, count))
        read = reading(block, full, prefix, prompts) if other else nullcontext()
        with read, self._extended(block, more):
            out: Tensor = block(x if full is None else x[:, :wanted], **arguments)
        return out  # (B, count + p, D), or (B, wanted, D)

    def read(self, count: int) -> int:
        """How many of the model's own `count` tokens the classifier reads, from the first."""
        alone = self.model.global_pool == "token" and getattr(self.model, "attn_pool", None) is None
        return len(self.heads) if alone else count

    def classify(self, tokens: Tensor) -> Tensor:
        """What the last block leaves: (B, N, D), or those that are read -> logits (B, classes)."""
        logits: Tensor = self.model.forward_head(self.model.norm(tokens))
        return logits

    def _arguments(
        self, index: int, positions: Any, more: int, mask: Tensor | None
    ) -> Mapping[str, Any]:
        """What a block is told beside its tokens, `more` of which have no position."""
        return {} if mask is None else {"attn_mask": mask}

    def _extended(self, block: Any, more: int) -> Any:
        """A context in which the block's own position tables hold `more` tokens."""
        return nullcontext()


class Rotary(Family):
    """Eva: EVA, EVA-02, DINOv3 and other models with rotary positions."""

    def embed(self, images: Tensor) -> tuple[Tensor, Any]:
        """(B, 3, H, W) -> tokens (B, N, D), and angles as sine and cosine (…, N - special, 2d)."""
        x, angles = self.model._pos_embed(self.model.patch_embed(images))  # (B, N, D)
        return self.model.norm_pre(x), angles

    def _arguments(
        self, index: int, positions: Any, more: int, mask: Tensor | None
    ) -> Mapping[str, Any]:
        angles = positions
        if angles is not None and self.model.rope_mixed:
            angles = angles[index]  # each block has its own
        if angles is not None and more:  # an angle of zero: sine 0, cosine 1
            sine, cosine = angles.chunk(2, dim=-1)  # 2 × (…, N, d)
            rows = (0, 0, 0, more)
            angles = torch.cat([F.pad(sine, rows), F.pad(cosine, rows, value=1.0)], dim=-1)
        return {"rope": angles, "attn_mask": mask}


class Relative(Family):
    """BEiT: attention with a bias for each pair of positions."""

    def embed(self, images: Tensor) -> tuple[Tensor, Any]:
        """(B, 3, H, W) -> tokens (B, N, D), and the bias that all blocks share (heads, N, N)."""
        model = self.model
        x = model.patch_embed(images)  # (B, N - 1, D)
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, N, D)
        x = x if model.pos_embed is None else x + model.pos_embed  # (B, N, D)
        return model.pos_drop(x), None if model.rel_pos_bias is None else model.rel_pos_bias()

    def _arguments(
        self, index: int, positions: Any, more: int, mask: Tensor | None
    ) -> Mapping[str, Any]:
        bias = positions
        if bias is not None and more:
            bias = F.pad(bias, (0, more, 0, more))  # (heads, N + p, N + p)
        if mask is not None:
            bias = mask if bias is None else bias + mask  # (1, heads, N + p, N + p)
        return {"shared_rel_pos_bias": bias}

    @contextmanager
    def _extended(self, block: Any, more: int) -> Iterator[None]:
        attn = block.attn
        if not more or attn.relative_position_bias_table is None:
            yield
            return
        own = attn._get_rel_pos_bias  # -> (1, heads, N, N)
        vars(attn)["_get_rel_pos_bias"] = lambda: F.pad(own(), (0, more, 0, more))
        try:
            yield
        finally:
            del vars(attn)["_get_rel_pos_bias"]


# Attention and blocks whose forward the hooks were written for, by family.
KNOWN: tuple[tuple[type, type[Family], tuple[type, ...], tuple[type, ...]], ...] = (
    (VisionTransformer, Family, (Block, ResPostBlock), (Attention,)),
    (eva.Eva, Rotary, (eva.EvaBlock, eva.EvaBlockPostNorm), (eva.EvaAttention, AttentionRope)),
    (beit.Beit, Relative, (beit.Block,), (beit.Attention,)),
)


def family_of(model: nn.Module, spec: str) -> Family:
    """The family of a timm model.

    Raises:
        BackboneError: if it cannot be supported; says why.
    """
    for kind, family, blocks, attentions in KNOWN:
        if isinstance(model, kind):
            reason = _reason(model, blocks, attentions)
            if reason:
                raise BackboneError(f"{spec}: {reason}")
            return family(model)
    names = ", ".join(kind.__name__ for kind, *_ in KNOWN)
    raise BackboneError(
        f"{spec}: {type(model).__name__} is not supported: {_foreign(model)}; supported are timm's "
        f"{names}, which is ViT, DeiT, DINOv2, DINOv3, EVA, CLIP, SigLIP and BEiT"
    )


def _foreign(model: nn.Module) -> str:
    """Why a model of an unknown class cannot be run piece by piece."""
    blocks = {
        name: found
        for name, found in model.named_modules()
        if hasattr(found, "attn") and hasattr(found, "mlp")
    }
    if not blocks:
        return "it has no transformer blocks, that is, none with an attention `attn` and an `mlp`"
    homes = sorted({name.rpartition(".")[0] for name in blocks})
    if homes != ["blocks"]:
        told = ", ".join(homes[:3]) + (" …" if len(homes) > 3 else "")
        return (
            f"its transformer blocks lie in {told or 'itself'}, not in one list `blocks` that the "
            "same tokens go through"
        )
    kinds = sorted({f"{type(x).__name__} with {type(x.attn).__name__}" for x in blocks.values()})
    return (
        f"how this class embeds images and runs its blocks ({', '.join(kinds)}) is not known here"
    )


def _reason(model: Any, blocks: tuple[type, ...], attentions: tuple[type, ...]) -> str | None:
    """Why a model of a known family is not supported; None if it is."""
    if not model.global_pool:
        return "it pools nothing (global_pool=''); load it with global_pool='avg' or 'token'"
    layers = model.patch_embed.modules()  # a patch embedding may be a network of its own
    channels = next((x.in_channels for x in layers if isinstance(x, nn.Conv2d)), 3)
    if channels != 3:
        return f"the model takes {channels} channels; images have 3"
    if not isinstance(getattr(model, "patch_drop", None), nn.Identity | None):
        return "it drops patches while training; load it with patch_drop_rate=0"
    if any(isinstance(layer, _BatchNorm) for layer in model.modules()):
        return "it has batch norms, whose statistics training changes though weights are frozen"
    for block in model.blocks:
        if type(block) not in blocks:
            return f"its {type(block).__name__} blocks are not supported; {_named(blocks)}"
        attn = block.attn
        if type(attn) not in attentions:
            return f"its attention {type(attn).__name__} is not supported; {_named(attentions)}"
        if getattr(attn, "num_kv_groups", 1) > 1:
            return "its attention shares keys among heads (grouped queries), which is not supported"
        if attn.proj.in_features != model.embed_dim:
            return f"its attention is {attn.proj.in_features} wide, its tokens {model.embed_dim}"
        if not hasattr(block.mlp, "fc2"):
            return f"its MLP {type(block.mlp).__name__} is not supported: it has no layer `fc2`"
    return None


def _named(kinds: tuple[type, ...]) -> str:
    """Which classes are supported, for a message."""
    names = sorted({kind.__name__ for kind in kinds})
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
