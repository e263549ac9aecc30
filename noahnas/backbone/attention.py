"""Attention that may read more than it is asked about: fewer queries than keys and values.

timm's attention asks as much as it reads. Where prompt tokens or learned keys are only read, and
where the classifier reads a single token of the last block, the rest of the queries would be
computed and dropped. This is the forward of timm's attention classes (`KNOWN` in
`noahnas.backbone.families`) with that left out, on their own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor
from torch.nn import functional as F

from noahnas.backbone.short import ShortAttention, suits

LANES = 16  # numbers in a vector register
LEFT = 4  # keys beyond full registers, more of which cost more than a register that is filled up


def joint(attn: Any) -> Callable[[Tensor], Tensor]:
    """What gives queries, keys and values (B, N, D) -> (B, N, 3D), without a separate bias."""
    if attn.qkv is not None:
        layer: Callable[[Tensor], Tensor] = attn.qkv
        return layer
    layers = (attn.q_proj, attn.k_proj, attn.v_proj)
    return lambda x: torch.cat([layer(x) for layer in layers], dim=-1)


def separate_bias(attn: Any) -> Tensor | None:
    """(3D): biases that attention holds beside its layer; None if it holds none."""
    if getattr(attn, "q_bias", None) is None:
        return None
    return torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])


def position_bias(attn: Any, mask: Tensor | None, shared: Tensor | None) -> Tensor | None:
    """What is added to attention: a mask, or BEiT's bias of its own and of all blocks."""
    own = None
    if getattr(attn, "relative_position_bias_table", None) is not None:
        own = attn._get_rel_pos_bias()  # (1, H, N, N)
    terms = [term for term in (mask, shared, own) if term is not None]
    return sum(terms[1:], start=terms[0]) if terms else None


def attend(
    attn: Any,
    x: Tensor,
    queries: int,
    prompts: Sequence[Tensor] = (),
    prefix: Sequence[Tensor] = (),
    *,
    rope: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """What attention says of the first tokens.

    Args:
        attn: a timm attention.
        x: the tokens that it reads (B, N, D).
        queries: of how many of them, from the first, it is asked.
        prompts: more tokens (b, p, D) that it reads after them; b is the batch, or 1 for the same
            ones with every image.
        prefix: keys and values (b, p', 2D) that it reads after these.
        rope: sine and cosine of the angles of all keys but the special ones, (…, M, 2d).
        mask: what is added to attention, (…, 1 or more, N + p + p'): of all queries alike, or of
            the first ones.

    Returns:
        (B, queries, D).
    """
    batch, _, width = x.shape
    layer, bias = joint(attn), separate_bias(attn)

    def projected(tokens: Tensor) -> Tensor:
        out = layer(tokens)  # (b, N, 3D)
        return out if bias is None else out + bias  # (b, N, 3D)

    own = projected(x)  # (B, N, 3D)
    if torch.is_autocast_enabled(x.device.type):  # a module's fp32 factor may have widened it
        own = own.to(torch.get_autocast_dtype(x.device.type))  # (B, N, 3D)
    rows = [projected(part)[..., width:] for part in prompts]  # (b, p, 2D)
    rows = [part.to(own) for part in (*rows, *prefix)]  # (b, p, 2D)
    count = own.shape[1] + sum(part.shape[1] for part in rows)  # M
    if rope is None and mask is None and suits(attn, x, count):
        if len({len(part) for part in rows}) > 1:
            rows = [part.expand(batch, -1, -1) for part in rows]  # (B, p, 2D)
        joined = torch.cat(rows, dim=1) if len(rows) > 1 else (*rows, None)[0]  # (b, p, 2D)
        return _ended(attn, x, ShortAttention.apply(own, joined, attn.num_heads, queries))
    rows = [part.expand(batch, -1, -1) for part in rows]  # (B, p, 2D)
    spare = -count % LANES if count % LANES > LEFT and rope is None and _in_lanes(x) else 0
    if spare:  # keys that nobody reads
        rows.append(own.new_zeros(()).expand(batch, spare, 2 * width))  # (B, s, 2D)
        mask = own.new_zeros(1, 1, 1, count) if mask is None else mask.to(own)  # (…, 1 or more, M)
        mask = F.pad(mask, (0, spare), value=-torch.inf)  # (…, 1 or more, M + s)
    q, read = own.split((width, 2 * width), dim=-1)  # (B, N, D), (B, N, 2D)
    read = torch.cat([read, *rows], dim=1) if rows else read  # (B, M, 2D)
    heads, size = attn.num_heads, width // attn.num_heads
    q = q if queries == q.shape[1] else q[:, :queries]  # (B, n, D)
    if rows and torch.is_grad_enabled():  # a view would keep the keys and values for the backward
        q = q.clone()  # (B, n, D)
    q = q.unflatten(-1, (heads, size)).transpose(1, 2)  # (B, H, n, d)
    k, v = read.unflatten(-1, (2, heads, size)).permute(2, 0, 3, 1, 4).unbind()  # 2 × (B, H, M, d)
    if hasattr(attn, "q_norm"):
        q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        q, k = _turned(attn, q, rope).to(v), _turned(attn, k, rope).to(v)
    if mask is not None:
        mask = mask[..., :queries, :]  # (…, 1 or n, M)
    drop = attn.attn_drop.p if attn.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)  # (B, H, n, d)
    return _ended(attn, x, out.transpose(1, 2).flatten(2))  # (B, n, D)


def _ended(attn: Any, x: Tensor, out: Tensor) -> Tensor:
    """What attention does with what its heads say of the first tokens (B, n, D)."""
    if hasattr(attn, "norm"):
        out = attn.norm(out)  # (B, n, D)
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(x[:, : out.shape[1]]).sigmoid()  # (B, n, D)
    projected_out: Tensor = attn.proj_drop(attn.proj(out))  # (B, n, D)
    return projected_out


def _in_lanes(x: Tensor) -> bool:
    """Whether attention over a number of keys that vector registers do not divide is slow.

    A CPU's fused kernel takes 1.4 times as long for 27 keys as for 32, and for 207 as for 208; but
    0.9 times for 18.
    """
    return x.device.type == "cpu" and torch.backends.cuda.flash_sdp_enabled()


def _turned(attn: Any, x: Tensor, rope: Tensor) -> Tensor:
    """(B, H, N, d), turned by the angles of the tokens behind the special ones."""
    first, half = attn.num_prefix_tokens, getattr(attn, "rotate_half", False)
    rope = rope[..., : x.shape[2] - first, :]  # (…, N - special, 2d)
    if x.shape[2] <= first:
        return x
    return torch.cat([x[:, :, :first], apply_rot_embed_cat(x[:, :, first:], rope, half=half)], 2)
