"""Backbones: a pretrained timm ViT by name or from a file, never with random weights."""

from noahnas.backbone.backbone import (
    INTERPOLATIONS,
    Backbone,
    Preprocess,
    describe,
    load_backbone,
    weights_digest,
)
from noahnas.backbone.families import Family, family_of

__all__ = [
    "INTERPOLATIONS",
    "Backbone",
    "Family",
    "Preprocess",
    "describe",
    "family_of",
    "load_backbone",
    "weights_digest",
]
