"""Where in a timm block prompt modules act: hooks that live for one block of one call.

timm's code runs as it is. Whatever is put on a block here is taken off when the block has run, even
if it fails, so no state survives a call. Two threads must not run one block at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.backbone.folding import Fold, folded

Change = Callable[[Tensor, Tensor], Tensor]  # a layer's input and output -> its new output
LAYERS: dict[str, Callable[[Any], Any]] = {
    "norm1": lambda block: block.norm1,
    "proj": lambda block: block.attn.proj,
    "norm2": lambda block: block.norm2,
    "fc1": lambda block: block.mlp.fc1,
    "fc2": lambda block: block.mlp.fc2,
    "block": lambda block: block,
}
BRANCHES: dict[str, Callable[[Any], Any]] = {
    "attention": lambda block: (block.attn, block.drop_path1),
    "mlp": lambda block: (block.mlp, block.drop_path2),
}


@dataclass(frozen=True)
class Act:
    """What a prompt module does at one site of a block."""

    site: str  # as `noahnas.modules.PromptModule` names them
    change: Change
    fold: Fold | None = None  # the same on the layer's weights, where that is possible


@contextmanager
def acting(
    block: Any,
    acts: Sequence[Act],
    prefix: Sequence[Tensor] = (),
    *,
    full: Tensor | None = None,
    fold: bool = False,
) -> Iterator[None]:
    """Let the modules act at their sites of the block, and attention read the prefixes.

    Args:
        block: a timm block with norms, attention, MLP and drop-paths under timm's usual names.
        acts: what happens at which site, in order.
        prefix: keys and values (B, p, 2D) that attention reads beside those of the tokens.
        full: all tokens (B, N, D), where the block is given the first few alone: attention reads
            all of them, and what follows it is computed for the few.
        fold: put what can be put there into the layers' weights. No gradient may be recorded.
    """
    with ExitStack() as stack:
        if full is not None:
            _narrowed(stack, block, full)
        left = folded(stack, block, acts) if fold else acts
        if fold and type(block.mlp) is Mlp and type(block.mlp.act) is nn.GELU:
            _in_place(stack, block.mlp)
        at_qkv = [act.change for act in left if act.site == "qkv"]
        for act in left:
            if act.site in LAYERS:
                _at_layer(stack, act.site, block, act.change)
            elif act.site in BRANCHES:
                first, last = BRANCHES[act.site](block)
                _at_branch(stack, first, last, act.change)
            elif act.site == "hidden":
                hook = block.mlp.fc2.register_forward_pre_hook(_on_input(act.change))
                stack.callback(hook.remove)
        if prefix:  # after the branches, which are told of no more tokens than there are
            rows = torch.cat(list(prefix), dim=1)  # (B, p, 2D)
            _with_more_tokens(stack, block.attn, rows.shape[1], drop=full is None)
            at_qkv = [_with_prefix(at_qkv, rows)]
        if at_qkv:
            _at_qkv(stack, block.attn, at_qkv)
        yield


def _narrowed(stack: ExitStack, block: Any, full: Tensor) -> None:
    """The first layer reads all tokens instead of the few; attention gives the few back."""
    waiting = [full]

    def widen(_layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        few.append(args[0].shape[1])
        return (waiting.pop(), *args[1:]) if waiting else args

    def narrow(_layer: Any, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return (args[0][:, : few[0]], *args[1:])  # (B, N, D) -> (B, few, D)

    few: list[int] = []
    for first in (block.norm1, block.attn):  # whichever the block calls first
        stack.callback(first.register_forward_pre_hook(widen).remove)
    stack.callback(block.attn.proj.register_forward_pre_hook(narrow).remove)


def _in_place(stack: ExitStack, mlp: Any) -> None:
    """GELU overwrites the MLP's hidden units, which nobody else reads."""
    kind = mlp.act.approximate
    vars(mlp)["act"] = lambda h: torch.ops.aten.gelu_(h, approximate=kind)  # (B, N, H)
    stack.callback(vars(mlp).pop, "act")


def _at_layer(stack: ExitStack, site: str, block: Any, change: Change) -> None:
    if site == "fc1" and not hasattr(block.mlp, "fc1"):
        _at_split_fc1(stack, block.mlp, change)
    else:
        stack.callback(LAYERS[site](block).register_forward_hook(_on_output(change)).remove)


def _on_output(change: Change) -> Any:
    return lambda _layer, args, out: change(args[0], out)


def _on_input(change: Change) -> Any:
    return lambda _layer, args: (change(args[0], args[0]), *args[1:])


def _at_branch(stack: ExitStack, first: Any, last: Any, change: Change) -> None:
    """A branch runs from its attention or MLP to its drop-path."""
    read: list[Tensor] = []  # what the branch reads, from its start to its end

    def keep(_layer: Any, args: tuple[Tensor, ...]) -> None:
        read[:] = [args[0]]

    def replace(_layer: Any, _args: Any, out: Tensor) -> Tensor:
        return change(read.pop()[:, : out.shape[1]], out)

    stack.callback(first.register_forward_pre_hook(keep).remove)
    stack.callback(last.register_forward_hook(replace).remove)


def _at_split_fc1(stack: ExitStack, mlp: Any, change: Change) -> None:
    """Timm's SwiGLU has its gate and its values in two layers; they are changed as one."""

    def at_gate(_layer: Any, args: tuple[Tensor], gate: Tensor) -> Tensor:
        joint = torch.cat([gate, mlp.fc1_x(args[0])], dim=-1)  # (B, N, 2H)
        gate, values = change(args[0], joint).chunk(2, dim=-1)  # 2 × (B, N, H)
        vars(mlp)["fc1_x"] = lambda _x: values  # what the MLP will ask for next
        return gate

    stack.callback(mlp.fc1_g.register_forward_hook(at_gate).remove)
    stack.callback(vars(mlp).pop, "fc1_x", None)


# --- queries, keys and values ----------------------------------------------------------------


def _at_qkv(stack: ExitStack, attn: Any, changes: Sequence[Change]) -> None:
    """Change the joint query-key-value layer, whichever way an attention class computes it."""

    def change(x: Tensor, out: Tensor) -> Tensor:
        for one in changes:
            out = one(x, out)  # (B, N, 3D)
        return out

    if attn.qkv is None:  # three layers: run as one for this call

        def joint(x: Tensor) -> Tensor:
            parts = [layer(x) for layer in (attn.q_proj, attn.k_proj, attn.v_proj)]
            return change(x, torch.cat(parts, dim=-1))  # (B, N, 3D)

        vars(attn)["qkv"] = joint
        stack.callback(vars(attn).__setitem__, "qkv", None)
        return
    bias = _separate_bias(attn)
    if bias is None:
        stack.callback(attn.qkv.register_forward_hook(_on_output(change)).remove)
        return
    # These classes read the layer's weight, unless told to add the bias by themselves.
    separate = attn.qkv_bias_separate
    attn.qkv_bias_separate = True
    stack.callback(setattr, attn, "qkv_bias_separate", separate)

    def around_bias(x: Tensor, out: Tensor) -> Tensor:
        return change(x, out + bias) - bias  # (B, N, 3D)

    stack.callback(attn.qkv.register_forward_hook(_on_output(around_bias)).remove)


def _separate_bias(attn: Any) -> Tensor | None:
    """(3D): biases that attention holds beside its layer; None if it holds none."""
    if getattr(attn, "q_bias", None) is None:
        return None
    return torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])


# --- keys and values of no token -------------------------------------------------------------


def _with_more_tokens(stack: ExitStack, attn: Any, more: int, *, drop: bool) -> None:
    """Attention is given `more` tokens than it is asked about; what it says of them is dropped.

    Without `drop` something else does that.
    """

    def append(_layer: Any, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return (F.pad(args[0], (0, 0, 0, more)), *args[1:])  # (B, N, D) -> (B, N + p, D)

    def cut(_layer: Any, _args: Any, out: Tensor) -> Tensor:
        return out[:, : out.shape[1] - more]  # (B, N + p, D) -> (B, N, D)

    stack.callback(attn.register_forward_pre_hook(append).remove)
    if drop:
        stack.callback(attn.register_forward_hook(cut).remove)


def _with_prefix(changes: Sequence[Change], rows: Tensor) -> Change:
    """Keys and values of the added tokens are those of the prefix; they ask for nothing."""
    more, width = rows.shape[1], rows.shape[2] // 2

    def change(x: Tensor, out: Tensor) -> Tensor:
        count = x.shape[1] - more
        x, out = x[:, :count], out[:, :count]  # (B, N, D), (B, N, 3D)
        for one in changes:
            out = one(x, out)  # (B, N, 3D)
        added = F.pad(rows.expand(len(x), -1, -1), (width, 0))  # (B, p, 2D) -> (B, p, 3D)
        return torch.cat([out, added.to(out)], dim=1)  # (B, N + p, 3D)

    return change
