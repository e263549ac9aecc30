"""Prompt modules put into the weights of a block's layers, for one call.

Where a module changes a layer's output linearly, W·x + s·B·A·x = (W + s·B·A)·x: the sum of weights
costs as much as the update of a few hundred tokens, and every further token is then free. The
frozen weights stay: what the layer reads in their place hides them until the block has run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from noahnas.backbone.hooks import Act

Weights = tuple[Tensor, Tensor | None]  # of a layer: weight (out, in), or (D) of a norm; bias (out)
Fold = Callable[[Tensor, Tensor | None], Weights | None]
SITES: dict[str, Callable[[Any], Any]] = {
    "norm1": lambda block: block.norm1,
    "qkv": lambda block: block.attn.qkv,
    "proj": lambda block: block.attn.proj,
    "norm2": lambda block: block.norm2,
    "fc1": lambda block: getattr(block.mlp, "fc1", None),
    "fc2": lambda block: block.mlp.fc2,
}


def folded(stack: ExitStack, block: Any, acts: Sequence[Act]) -> list[Act]:
    """Hide the weights of the block's layers by those with the acts in them, until `stack` closes.

    Returns the acts that are left to be done. At each layer modules act one after the other, so
    the first that cannot be folded leaves the later ones to be done, too.
    """
    left: list[Act] = []
    for site, layer_of in SITES.items():
        here = [act for act in acts if act.site == site]
        before = [act for act in acts if act.site == "hidden"] if site == "fc2" else []
        if not here and not before:
            continue
        layer = layer_of(block)
        if not isinstance(layer, nn.Linear | nn.LayerNorm):
            left += before + here
            continue
        own = original = _read(layer, block, site)
        while here and (changed := here[0].fold and here[0].fold(*own)):
            own, here = changed, here[1:]
        while before and not here and (changed := before[-1].fold and before[-1].fold(*own)):
            own, before = changed, before[:-1]  # these come before the layer: folded after it
        left += before + here
        if own is not original:
            _hide(stack, layer, block, site, original, own)
    return left + [act for act in acts if act.site not in SITES and act.site != "hidden"]


def _read(layer: Any, block: Any, site: str) -> Weights:
    attn = block.attn
    if site == "qkv" and getattr(attn, "q_bias", None) is not None:
        return layer.weight, torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])  # (3D, D), (3D)
    return layer.weight, layer.bias


def _hide(
    stack: ExitStack, layer: Any, block: Any, site: str, was: Weights, becomes: Weights
) -> None:
    """An attribute of the object itself is found before a parameter of the same name."""
    for name, old, new in zip(("weight", "bias"), was, becomes, strict=True):
        if new is old:
            continue
        if name == "bias" and site == "qkv" and getattr(block.attn, "q_bias", None) is not None:
            assert new is not None  # a fold never takes a bias away
            for part, value in zip(("q_bias", "k_bias", "v_bias"), new.chunk(3), strict=True):
                shadow(stack, block.attn, part, value)
        else:
            shadow(stack, layer, name, new)


def shadow(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Hide an attribute of a module, a layer of its or a parameter until `stack` closes."""
    there = vars(owner)
    if name in there:  # hidden already, by a copy in reduced precision
        stack.callback(there.__setitem__, name, there[name])
    else:
        stack.callback(there.pop, name)
    there[name] = value
