"""Rendered tasks as data sources: 800 train, 200 val and 1000 test pictures, drawn when loaded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from noahnas.data import rendered
from noahnas.data.arrays import from_arrays
from noahnas.data.dataset import SPLITS, Dataset, LoadOptions, no_argument

COUNTS = {"train": 800, "val": 200, "test": 1000}  # pictures
Draw = Callable[[np.random.Generator, int], tuple[NDArray[np.uint8], NDArray[np.int64]]]


def load_count(argument: str, options: LoadOptions) -> Dataset:
    """One to eight objects to be counted."""
    no_argument("count", argument)
    return _drawn("count", tuple(map(str, range(1, 9))), rendered.count, options)


def load_distance(argument: str, options: LoadOptions) -> Dataset:
    """How far a red disc is from a blue one, six bins."""
    no_argument("distance", argument)
    return _drawn("distance", tuple("012345"), rendered.distance, options)


def load_heading(argument: str, options: LoadOptions) -> Dataset:
    """Which of 16 ways an arrow points."""
    no_argument("heading", argument)
    return _drawn("heading", tuple(map(str, range(16))), rendered.heading, options)


def load_x_position(argument: str, options: LoadOptions) -> Dataset:
    """Which of 16 columns holds a shape."""
    no_argument("x-position", argument)
    return _drawn("x-position", tuple(map(str, range(16))), rendered.x_position, options)


def _drawn(name: str, classes: tuple[str, ...], draw: Draw, options: LoadOptions) -> Dataset:
    drawn = {
        split: draw(np.random.default_rng([options.split_seed, number]), COUNTS[split])
        for number, split in enumerate(SPLITS)
    }
    return from_arrays(name, classes, drawn, options)
