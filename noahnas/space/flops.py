"""What the frozen backbone's forward costs, in floating-point operations of one image.

A multiply-accumulate counts two. Matrix products and attention are counted; norms, activations and
sums, which are under one per cent of a block, are not.
"""

from __future__ import annotations

from noahnas.space.schema import Shape


def linear_flops(tokens: int, inputs: int, outputs: int) -> int:
    """A linear layer on each of `tokens` tokens."""
    return 2 * tokens * inputs * outputs


def attention_flops(shape: Shape) -> int:
    """A block's attention with its projections."""
    projections = linear_flops(shape.tokens, shape.width, 4 * shape.width)  # qkv, and out
    return projections + reading_flops(shape, shape.tokens)


def reading_flops(shape: Shape, keys: int) -> int:
    """What all tokens of a block spend on reading `keys`: scores, and the mean of values."""
    return 4 * shape.tokens * keys * shape.width


def block_flops(shape: Shape) -> int:
    """One block: attention and MLP."""
    mlp = linear_flops(shape.tokens, shape.width, shape.fc1 + shape.hidden)
    return attention_flops(shape) + mlp


def backbone_flops(shape: Shape) -> int:
    """All blocks of the frozen backbone; patch embedding, pooling and classifier are left out."""
    return shape.blocks * block_flops(shape)
