"""Which images are held out, where a source comes without val or test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from noahnas.errors import DataError

SHARE = 0.2  # of the images held out as val, and again as test
Item = TypeVar("Item")


def complete(
    name: str,
    classes: Sequence[str],
    found: Mapping[str, Sequence[Item]],
    labels: Sequence[int],
    seed: int,
) -> dict[str, list[Item]]:
    """Take the splits that `found` lacks out of train: 20 % of each class, by seed.

    Args:
        name: of the data set, in messages.
        classes: names, in label order.
        found: items of train, and of val and test where the source has them.
        labels: of the items of train.
        seed: decides which items are taken.

    Raises:
        DataError: if a class has too few images.
    """
    given = {split: list(items) for split, items in found.items()}
    missing = [split for split in ("val", "test") if split not in given]
    if not missing:
        return given
    array, items = np.array(labels, dtype=np.int64), given["train"]
    few = [c for i, c in enumerate(classes) if 0 < (array == i).sum() <= len(missing)]
    if few:
        raise DataError(
            f"{name}: too few images of {', '.join(few[:5])} to hold out {' and '.join(missing)}: "
            f"at least {len(missing) + 1} needed in each class"
        )
    parts = stratified(array, [SHARE] * len(missing), np.random.default_rng(seed))
    taken = {split: [items[i] for i in part] for split, part in zip(missing, parts, strict=False)}
    return given | taken | {"train": [items[i] for i in parts[-1]]}


def stratified(
    labels: NDArray[np.int64], fractions: Sequence[float], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Divide the indices of `labels` into len(fractions) + 1 parts with each class in proportion.

    Part i gets the share fractions[i] of each class, rounded, and at least one image of it; the
    last part gets the rest.

    Raises:
        ValueError: if a class has fewer images than there are parts.
    """
    parts: list[list[int]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        indices = rng.permutation(np.flatnonzero(labels == label))
        if len(indices) < len(parts):
            raise ValueError(f"class {label} has {len(indices)} images for {len(parts)} splits")
        start = 0
        for part, fraction in zip(parts, fractions, strict=False):
            most = len(indices) - start - 1
            stop = start + min(max(1, round(fraction * len(indices))), most)
            part.extend(indices[start:stop].tolist())
            start = stop
        parts[-1].extend(indices[start:].tolist())
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]
