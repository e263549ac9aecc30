"""Pictures that stand in two splits: a score on them says nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from noahnas.errors import DataError

Keys = Mapping[str, Sequence[bytes]]  # of each split, one per image; equal pictures have equal keys
SIZE = 16  # bytes of a key


def picture_key(pixels: NDArray[np.uint8]) -> bytes:
    """16 bytes that tell a picture by its pixels."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=SIZE).digest()


def shared(keys: Keys) -> dict[str, list[int]]:
    """Rows of train and of val whose picture stands in a later split, too."""
    later: set[bytes] = set(keys["test"])
    rows = {"val": [i for i, key in enumerate(keys["val"]) if key in later]}
    later |= set(keys["val"])
    rows["train"] = [i for i, key in enumerate(keys["train"]) if key in later]
    return rows


def refuse(name: str, keys: Keys, names: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError if a picture stands in two splits, naming the first three."""
    rows = shared(keys)
    count = sum(len(found) for found in rows.values())
    if not count:
        return
    where: dict[bytes, str] = {}
    for split in ("val", "test"):
        where |= {key: names[split][i] for i, key in enumerate(keys[split])}
    pairs = [
        f"{names[split][i]} of {split} = {where[keys[split][i]]}"
        for split in ("train", "val")
        for i in rows[split]
    ]
    more = f"; {len(pairs) - 3} more" if len(pairs) > 3 else ""
    told = "1 picture stands" if count == 1 else f"{count} pictures stand"
    raise DataError(
        f"{name}: {told} in two splits: {'; '.join(pairs[:3])}{more}. Remove them, "
        "or leave them out of the earlier split with --on-error skip"
    )
