"""Data sets from images in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from noahnas.data.dataset import Dataset, LoadOptions, Split

Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (n, h, w, 3) RGB or (n, h, w) grey; (n,)


def from_arrays(
    name: str, classes: Sequence[str], found: Mapping[str, Pictures], options: LoadOptions
) -> Dataset:
    """A data set of images of any one size, resized directly.

    Args:
        name: of the data set, in messages and results.
        classes: names, in label order.
        found: images and labels of train, val and test.
        options: how to read them.

    Raises:
        DataError: if the data set is unfit (`Dataset`).
    """
    splits = {}
    for split, (images, labels) in found.items():
        colour = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)
        pixels = np.stack([_resized(image, options.size) for image in colour])  # (n, H, W, 3)
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # (n, 3, H, W)
        splits[split] = Split(tensor, torch.from_numpy(labels))
    return Dataset(name, tuple(classes), splits["train"], splits["val"], splits["test"])


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
