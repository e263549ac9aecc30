"""Normalisation by name: which mean and standard deviation a stage feeds the backbone with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noahnas.backbone import Preprocess

Triple = tuple[float, float, float]
MEANS: dict[str, tuple[Triple, Triple] | None] = {  # mean and std per channel, of pixels in [0, 1]
    "backbone": None,  # what the backbone was pretrained with
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def normalised(preprocess: Preprocess, name: str) -> Preprocess:
    """The same preprocessing with the mean and std of `name`, one of `MEANS`."""
    found = MEANS[name]
    return preprocess if found is None else replace(preprocess, mean=found[0], std=found[1])
