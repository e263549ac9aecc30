"""The embedded demo task: handwritten digits 5 to 9, 8×8 grey, which the embedded ViT never saw."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from noahnas.data.arrays import from_arrays
from noahnas.data.dataset import SPLITS, Dataset, LoadOptions, no_argument
from noahnas.data.holdout import stratified

TRAIN, VAL = 200, 100  # images, before rounding in each class; all others are test
KEPT = range(5, 10)  # the embedded vit-digits was trained on the others


def load_digits(argument: str, options: LoadOptions) -> Dataset:
    """Embedded handwritten digits 5–9: 200 train, 99 val, 597 test images, by seed.

    Source: UCI "Optical Recognition of Handwritten Digits", CC BY 4.0, as scikit-learn ships it.
    """
    no_argument("digits", argument)
    images, labels = digits()
    keep = np.isin(labels, list(KEPT))
    images, labels = images[keep], labels[keep] - KEPT.start  # (n, 8, 8), (n)
    shares = [TRAIN / len(labels), VAL / len(labels)]
    parts = stratified(labels, shares, np.random.default_rng(options.split_seed))
    found = {name: (images[part], labels[part]) for name, part in zip(SPLITS, parts, strict=True)}
    return from_arrays("digits", tuple(map(str, KEPT)), found, options)


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All ten digits: images (n, 8, 8) in 0…255, labels (n,) in 0…9."""
    with files("noahnas").joinpath("assets", "digits.npz").open("rb") as f:
        archive = np.load(f)
        grey, labels = archive["images"], archive["labels"]  # (n, 8, 8) in 0…16, (n,)
    pixels = (grey.astype(np.float32) * (255 / 16)).round().astype(np.uint8)  # (n, 8, 8)
    return pixels, labels.astype(np.int64)
