"""What a space must know of a backbone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from noahnas.errors import BackboneError
from noahnas.space.schema import Shape


def measures(backbone: Any) -> dict[str, int]:
    """What a space must know of a timm model: its shape, and its parameters without the head.

    Raises:
        BackboneError: if it is no vision transformer.
    """
    try:
        shape = Shape.of(backbone)
    except (AttributeError, TypeError, IndexError):
        message = (
            f"a {type(backbone).__name__} has no blocks of attention and MLP with tokens of one "
            "width: a space takes a timm vision transformer, such as vit_base_patch16_224"
        )
        raise BackboneError(message) from None
    head = sum(p.numel() for p in getattr(backbone, "head", backbone).parameters())
    whole = sum(p.numel() for p in backbone.parameters())
    return asdict(shape) | {"weights": whole - head if head < whole else whole}
