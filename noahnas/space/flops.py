"""What the frozen backbone's forward costs, in floating-point operations of one image.

A multiply-accumulate counts two. Matrix products and attention are counted; norms, activations and
sums, which are under one per cent of a block, are not.
"""

from __future__ import annotations

from noahnas.space.schema import Shape


def linear_flops(tokens: int, inputs: int, outputs: int) -> int:
    """A linear layer on each of `tokens` tokens."""
    return 2 * tokens * inputs * outputs


def attention_flops(shape: Shape, more: int = 0) -> int:
    """A block's attention with its projections, with `more` tokens than the images give."""
    tokens = shape.tokens + more
    projections = linear_flops(tokens, shape.width, 4 * shape.width)  # qkv, and out
    return projections + 4 * tokens**2 * shape.width  # scores, and the mean of values


def mlp_flops(shape: Shape, more: int = 0) -> int:
    """A block's MLP, with `more` tokens than the images give."""
    return linear_flops(shape.tokens + more, shape.width, shape.fc1 + shape.hidden)


def block_flops(shape: Shape, more: int = 0) -> int:
    """One block, with `more` tokens than the images give."""
    return attention_flops(shape, more) + mlp_flops(shape, more)


def backbone_flops(shape: Shape) -> int:
    """All blocks of the frozen backbone; patch embedding, pooling and classifier are left out."""
    return shape.blocks * block_flops(shape)
