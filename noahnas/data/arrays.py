"""Data sets from images in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from noahnas.data.dataset import SPLITS, Dataset, LoadOptions, Notes, Split
from noahnas.data.image import Pixels, read_pixels, resize
from noahnas.data.overlap import picture_key, refuse, shared
from noahnas.data.store import Item, from_items

LARGE = 2**28  # bytes; a larger set is resized on disk, not in memory
Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (n, h, w, 3) RGB or (n, h, w) grey; (n,)


def from_arrays(
    name: str,
    classes: Sequence[str],
    found: Mapping[str, Pictures],
    options: LoadOptions,
    *,
    fixed: bool = False,
) -> Dataset:
    """A data set of images of any one size, resized directly.

    Args:
        name: of the data set, in messages and results.
        classes: names, in label order.
        found: images and labels of train, val and test.
        options: how to read them.
        fixed: as for `noahnas.data.store.from_items`.

    Raises:
        DataError: if a picture stands in two splits, unless `options.on_error` is "skip", or if
            the set is unfit (`Dataset`).
    """
    keys = {split: [picture_key(image) for image in found[split][0]] for split in SPLITS}
    count = sum(len(labels) for _, labels in found.values())
    if count * 3 * math.prod(options.size) > LARGE:
        items = {split: _items(split, *found[split], keys[split]) for split in SPLITS}
        return from_items(name, classes, items, options, fixed=fixed)
    doubled: Mapping[str, Sequence[int]] = {}
    if fixed or options.on_error == "skip":
        doubled = shared(keys)
    else:
        refuse(name, keys, {s: [f"image {i}" for i in range(len(keys[s]))] for s in SPLITS})
    splits = {}
    for split in SPLITS:
        images, labels = found[split]
        if doubled.get(split) and not fixed:
            keep = np.setdiff1d(np.arange(len(labels)), doubled[split])
            images, labels = images[keep], labels[keep]
        splits[split] = Split(
            resized(images, options.size, options.interpolation), torch.from_numpy(labels)
        )
    notes = Notes(overlap=sum(len(rows) for rows in doubled.values()), kept=fixed)
    return Dataset(name, tuple(classes), splits["train"], splits["val"], splits["test"], notes)


def _items(
    split: str, images: NDArray[np.uint8], labels: NDArray[np.int64], keys: Sequence[bytes]
) -> list[Item]:
    """The images one by one, for the store on disk."""

    def read(index: int, size: tuple[int, int], interpolation: str) -> Pixels:
        return read_pixels(Image.fromarray(images[index]), size, interpolation)

    return [
        Item(f"image {i} of {split}", label, partial(read, i), keys[i].hex())
        for i, label in enumerate(labels.tolist())
    ]


def resized(
    images: NDArray[np.uint8], size: tuple[int, int], interpolation: str = "bicubic"
) -> torch.Tensor:
    """Images of any one size at another: (n, h, w) or (n, h, w, 3) -> (n, 3, H, W)."""
    pixels = np.zeros((len(images), 3, *size), np.uint8)  # (n, 3, H, W)
    for row, image in zip(pixels, images, strict=True):
        small = resize(Image.fromarray(image), size, interpolation)
        row[:] = np.moveaxis(np.asarray(small.convert("RGB")), 2, 0)  # (H, W, 3) -> (3, H, W)
    return torch.from_numpy(pixels)
