"""Rendered tasks as data sources: 800 train, 200 val and 1000 test pictures, drawn when loaded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from noahnas.data import rendered
from noahnas.data.dataset import SPLITS, Dataset, Split, no_argument

COUNTS = {"train": 800, "val": 200, "test": 1000}  # pictures
Draw = Callable[[np.random.Generator, int], tuple[NDArray[np.uint8], NDArray[np.int64]]]


def load_count(argument: str, size: tuple[int, int], split_seed: int) -> Dataset:
    """One to eight objects to be counted (`rendered.count`)."""
    no_argument("count", argument)
    return _drawn("count", tuple(map(str, range(1, 9))), rendered.count, size, split_seed)


def load_distance(argument: str, size: tuple[int, int], split_seed: int) -> Dataset:
    """How far a red disc is from a blue one, six bins (`rendered.distance`)."""
    no_argument("distance", argument)
    return _drawn("distance", tuple("012345"), rendered.distance, size, split_seed)


def load_heading(argument: str, size: tuple[int, int], split_seed: int) -> Dataset:
    """Which of 16 ways an arrow points (`rendered.heading`)."""
    no_argument("heading", argument)
    return _drawn("heading", tuple(map(str, range(16))), rendered.heading, size, split_seed)


def load_x_position(argument: str, size: tuple[int, int], split_seed: int) -> Dataset:
    """Which of 16 columns holds a shape (`rendered.x_position`)."""
    no_argument("x-position", argument)
    return _drawn("x-position", tuple(map(str, range(16))), rendered.x_position, size, split_seed)


def _drawn(
    name: str, classes: tuple[str, ...], draw: Draw, size: tuple[int, int], seed: int
) -> Dataset:
    splits = {}
    for number, split in enumerate(SPLITS):
        images, labels = draw(
            np.random.default_rng([seed, number]), COUNTS[split]
        )  # (n, 64, 64, 3)
        pixels = np.stack([_resized(image, size) for image in images])  # (n, H, W, 3)
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # (n, 3, H, W)
        splits[split] = Split(tensor, torch.from_numpy(labels))
    return Dataset(name, classes, splits["train"], splits["val"], splits["test"])


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
