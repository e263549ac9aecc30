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
from timm.models.eva import EvaBlockPostNorm
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from noahnas.backbone.attention import attend, joint, position_bias, separate_bias
from noahnas.backbone.folding import Fold, folded, shadow

Change = Callable[[Tensor, Tensor], Tensor]  # a layer's input and output -> its new output
LAYERS: dict[str, Callable[[Any], Any]] = {
    "norm1": lambda block: block.norm1,
    "proj": lambda block: block.attn.proj,
    "norm2": lambda block: block.norm2,
    "fc1": lambda block: block.mlp.fc1,
    "fc2": lambda block: block.mlp.fc2,
    "block": lambda block: block,
}
POST = (ResPostBlock, EvaBlockPostNorm)  # their norms come after attention and MLP
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
def acting(block: Any, acts: Sequence[Act], *, fold: bool = False) -> Iterator[None]:
    """Let the modules act at their sites of the block, as often as it runs.

    Args:
        block: a timm block with norms, attention, MLP and drop-paths under timm's usual names.
        acts: what happens at which site, in order.
        fold: put what can be put there into the layers' weights. No gradient may be recorded.
    """
    with ExitStack() as stack:
        left = folded(stack, block, acts) if fold else acts
        if fold and type(block.mlp) is Mlp and type(block.mlp.act) is nn.GELU:
            _in_place(stack, block.mlp)
        at_qkv = [act.change for act in left if act.site == "qkv"]
        if at_qkv:
            _at_qkv(stack, block.attn, at_qkv)
        for act in left:
            if act.site in LAYERS:
                _at_layer(stack, act.site, block, act.change)
            elif act.site in BRANCHES:
                first, last = BRANCHES[act.site](block)
                _at_branch(stack, first, last, act.change)
            elif act.site == "hidden":
                hook = block.mlp.fc2.register_forward_pre_hook(_on_input(act.change))
                stack.callback(hook.remove)
        yield


@contextmanager
def reading(
    block: Any,
    full: Tensor | None,
    prefix: Sequence[Tensor] = (),
    prompts: Sequence[Tensor] = (),
) -> Iterator[None]:
    """Let attention be `attend`, which may read more than the block's own tokens, this one time.

    Args:
        block: as for `acting`.
        full: all tokens (B, N, D), where the block is given the first few alone: attention reads
            all of them, and what follows it is computed for the few.
        prefix: keys and values (b, p, 2D) that attention reads beside those of the tokens; b is the
            batch, or 1 for the same ones with every image.
        prompts: tokens (b, p, D) that attention reads and that nobody asks for afterwards: keys and
            values are made of them, and nothing else.
    """
    attn = block.attn
    normed = not isinstance(block, POST)  # whether attention reads what the first norm gives
    asked: list[int] = []  # how many tokens the block was given, if those are not all

    def widen(_layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if asked:
            return args
        asked.append(args[0].shape[1])
        return (full, *args[1:])  # (B, N, D)

    def forward(
        x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, **more: Any
    ) -> Tensor:
        read = [block.norm1(part) for part in prompts] if normed else prompts  # (b, p, D)
        mask = position_bias(attn, attn_mask, more.get("shared_rel_pos_bias"))
        queries = asked[0] if asked else x.shape[1]
        return attend(attn, x, queries, read, prefix, rope=rope, mask=mask)

    with ExitStack() as stack:
        if full is not None:
            first = block.norm1 if normed else attn
            stack.callback(first.register_forward_pre_hook(widen).remove)
        shadow(stack, attn, "forward", forward)
        yield


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

    bias, layer = separate_bias(attn), joint(attn)
    if bias is not None:
        # These classes read the layer's weight, unless told to add the bias by themselves.
        shadow(stack, attn, "qkv_bias_separate", True)
    if attn.qkv is None:  # three layers: run as one for this call
        shadow(stack, attn, "qkv", lambda x: change(x, layer(x)))
        return

    def around_bias(x: Tensor, out: Tensor) -> Tensor:
        return change(x, out) if bias is None else change(x, out + bias) - bias  # (B, N, 3D)

    stack.callback(attn.qkv.register_forward_hook(_on_output(around_bias)).remove)
