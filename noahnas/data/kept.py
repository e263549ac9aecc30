"""Pictures kept in the cache as one file whose contents have a digest known beforehand."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from noahnas.data.arrays import Pictures
from noahnas.data.dataset import SPLITS
from noahnas.errors import DataError


def digest(found: Mapping[str, Pictures]) -> str:
    """sha256 over pixels and labels of all splits, in hex; of no file format."""
    h = hashlib.sha256()
    for split in SPLITS:
        for array in found[split]:
            h.update(f"{split} {array.dtype.name} {array.shape}".encode())
            h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def keep(path: Path, found: Mapping[str, Pictures], pinned: str) -> None:
    """Write pictures to an `.npz` file, beside it first and renamed when whole.

    Raises:
        DataError: if their digest is not the pinned one; then nothing is written.
    """
    got = digest(found)
    if got != pinned:
        raise DataError(
            f"{path.stem}: the packages are the pinned ones, but the pictures made of them have "
            f"digest {got}, not {pinned}: the image decoder of Pillow {version('pillow')} differs; "
            "install Pillow from PyPI"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    arrays = {
        f"{split}_{what}": array
        for split, pair in found.items()
        for what, array in zip(("images", "labels"), pair, strict=True)
    }
    try:
        np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path, pinned: str, fix: str) -> dict[str, Pictures]:
    """What `keep` wrote, verified.

    Args:
        path: the `.npz` file.
        pinned: the digest that the pictures must have.
        fix: what mends a damaged file, in messages.

    Raises:
        DataError: if it cannot be read, or has another digest.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {s: (archive[f"{s}_images"], archive[f"{s}_labels"]) for s in SPLITS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path} is damaged ({e}): {fix} to make it anew") from e
    if digest(found) != pinned:
        raise DataError(f"{path} is damaged (its digest is not the pinned one): {fix}")
    return found
