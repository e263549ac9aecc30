"""The embedded demo task: handwritten digits 5 to 9, 8×8 grey, which the embedded ViT never saw."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from noahnas.data.dataset import Dataset, LoadOptions, Split, no_argument, stratified

TRAIN, VAL = 200, 100  # images, before rounding in each class; all others are test


def load_digits(argument: str, options: LoadOptions) -> Dataset:
    """Digits 5–9: 200 train, 99 val, 597 test images, each class in proportion.

    Source: UCI "Optical Recognition of Handwritten Digits", CC BY 4.0, as scikit-learn ships it.
    """
    no_argument("digits", argument)
    images, labels = digits(range(5, 10), options.size)
    shares = [TRAIN / len(labels), VAL / len(labels)]
    parts = stratified(labels, shares, np.random.default_rng(options.split_seed))
    splits = [
        Split(torch.from_numpy(images[part]), torch.from_numpy(labels[part])) for part in parts
    ]
    return Dataset("digits", tuple("56789"), *splits)


def digits(kept: range, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The digits in `kept`, relabelled from 0: images (n, 3, H, W) uint8, labels (n,)."""
    with files("noahnas").joinpath("assets", "digits.npz").open("rb") as f:
        archive = np.load(f)
        grey, labels = archive["images"], archive["labels"]  # (n, 8, 8) in 0…16, (n,)
    keep = np.isin(labels, list(kept))
    pixels = (grey[keep].astype(np.float32) * (255 / 16)).round().astype(np.uint8)  # (n, 8, 8)
    bicubic = Image.Resampling.BICUBIC
    resized = np.stack(
        [np.asarray(Image.fromarray(image).resize(size[::-1], bicubic)) for image in pixels]
    )  # (n, H, W)
    images = np.repeat(resized[:, None], 3, axis=1)  # (n, 3, H, W)
    return images, labels[keep].astype(np.int64) - kept.start
