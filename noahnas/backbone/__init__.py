"""Backbones: a pretrained timm ViT by name or from a file, never with random weights."""

from noahnas.backbone.backbone import (
    Backbone,
    Preprocess,
    check_supported,
    describe,
    load_backbone,
    weights_digest,
)

__all__ = [
    "Backbone",
    "Preprocess",
    "check_supported",
    "describe",
    "load_backbone",
    "weights_digest",
]
