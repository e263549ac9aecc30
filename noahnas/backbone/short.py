"""Attention over few tokens while training on a CPU, with its backward written out.

PyTorch's fused kernel is made for long sequences: over some ten tokens the matrix products that it
stands for take less time, and what is read beside the tokens themselves need not be joined to them
before, and be taken apart again afterwards. In bf16, where training cannot use the fused kernel,
that holds for longer sequences, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LONGEST = {False: 112, True: 256}  # keys up to which this is faster, under autocast or not


def suits(attn: Any, x: Tensor, keys: int) -> bool:
    """Whether `ShortAttention` is the faster way to train, and does all that this attention does.

    Masks and rotary positions are the caller's to exclude.
    """
    if not (attn.training and torch.is_grad_enabled()) or x.device.type != "cpu":
        return False
    if keys > LONGEST[torch.is_autocast_enabled("cpu")] or attn.attn_drop.p:
        return False
    if getattr(attn, "relative_position_bias_table", None) is not None:
        return False
    norms = (getattr(attn, name, None) for name in ("q_norm", "k_norm"))
    return all(norm is None or type(norm) is nn.Identity for norm in norms)


class ShortAttention(torch.autograd.Function):
    """softmax(q·kᵀ/√d)·v of each head, for the first tokens; more keys and values may follow.

    Called as `apply(own, rows, heads, queries)`.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: Tensor | None, heads: int, queries: int) -> Tensor:
        """(B, N, 3D), (b, p, 2D), b = B or 1 for the same with every image -> (B, n, D)."""
        batch, count, width = own.shape[0], own.shape[1], own.shape[2] // 3
        size = width // heads
        parts = own.view(batch, count, 3, heads, size).permute(2, 0, 3, 1, 4)  # (3, B, H, N, d)
        more = 0 if rows is None else rows.shape[1]
        q = own.new_empty(batch, heads, queries, size).copy_(parts[0, :, :, :queries])
        k, v = own.new_empty(2, batch, heads, count + more, size)  # 2 × (B, H, M, d)
        k[:, :, :count] = parts[1]
        v[:, :, :count] = parts[2]
        if rows is not None:
            pair = rows.unflatten(-1, (2, heads, size)).permute(2, 0, 3, 1, 4)  # (2, b, H, p, d)
            k[:, :, count:], v[:, :, count:] = pair
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)  # (BH, n or M, d)
        share = _product(q, k.transpose(1, 2), size**-0.5).softmax(dim=-1)  # (BH, n, M)
        ctx.save_for_backward(q, k, v, share)
        ctx.heads, ctx.more, ctx.alike = heads, more, rows is not None and len(rows) == 1
        out = torch.bmm(share, v).view(batch, heads, queries, size)  # (B, H, n, d)
        return out.transpose(1, 2).flatten(2)  # (B, n, D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of the joint layer's output, and of the rows."""
        q, k, v, share = ctx.saved_tensors
        heads, queries, size = ctx.heads, q.shape[1], q.shape[2]
        batch, count = len(q) // heads, k.shape[1] - ctx.more  # B, N
        out = grads[0].unflatten(-1, (heads, size)).transpose(1, 2).flatten(0, 1)  # (BH, n, d)
        v_grad = torch.bmm(share.transpose(1, 2), out)  # (BH, M, d)
        share_grad = torch.bmm(out, v.transpose(1, 2))  # (BH, n, M)
        score = torch._softmax_backward_data(share_grad, share, -1, share.dtype)  # (BH, n, M)
        k_grad = _product(score.transpose(1, 2), q, size**-0.5)  # (BH, M, d)
        q_grad = _product(score, k, size**-0.5)  # (BH, n, d)
        k_grad, v_grad, q_grad = (
            grad.view(batch, heads, -1, size) for grad in (k_grad, v_grad, q_grad)
        )  # (B, H, n or M, d)
        own = out.new_empty(batch, count, 3, heads, size)  # (B, N, 3, H, d)
        parts = own.permute(2, 0, 3, 1, 4)  # (3, B, H, N, d)
        parts[0, :, :, :queries] = q_grad
        parts[0, :, :, queries:] = 0
        parts[1] = k_grad[:, :, :count]
        parts[2] = v_grad[:, :, :count]
        rows = None
        if ctx.more and ctx.needs_input_grad[1]:
            pair = [grad[:, :, count:] for grad in (k_grad, v_grad)]  # 2 × (B, H, p, d)
            pair = [grad.sum(dim=0, keepdim=True) for grad in pair] if ctx.alike else pair
            rows = torch.stack(pair).permute(1, 3, 0, 2, 4).flatten(2)  # (b, p, 2D)
        return own.flatten(2), rows, None, None


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale·a·b of each pair of matrices."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)
