"""NumPy archives of images: `images` and `labels`, or the same per split."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from noahnas.data.arrays import Pictures, from_arrays
from noahnas.data.dataset import SPLITS, Dataset, LoadOptions, numbered
from noahnas.data.holdout import complete
from noahnas.errors import DataError
from noahnas.memory import memory

MAX_BYTES = 16 * 2**30  # of all arrays, unpacked; a larger set belongs in image files
WANTED = (
    "an archive holds `images` (n, H, W) or (n, H, W, 3), uint8, and `labels` (n,), whole numbers, "
    "or train_images, train_labels, val_images … for given splits, and if you like `classes`"
)


def load_npz(argument: str, options: LoadOptions) -> Dataset:
    """A NumPy archive with images and labels, or train_images, train_labels and so on.

    Images are uint8, (n, H, W) grey or (n, H, W, 3) RGB; labels are whole numbers from 0; `classes`
    holds their names. A missing val or test is taken out of train, 20 % of each class, by
    `options.split_seed`. Nothing pickled is read.

    Raises:
        DataError: if the archive is unreadable, or an array is missing or of another kind.
    """
    if not argument:
        raise DataError("name the file: npz:FILE")
    file = Path(argument)
    arrays = _arrays(file)
    prefixes = {split: f"{split}_" for split in SPLITS if f"{split}_images" in arrays}
    if not prefixes:
        prefixes = {"train": ""}
    elif "train" not in prefixes:
        raise DataError(f"{file}: {' and '.join(prefixes)} without train; {WANTED}")
    found = {split: _pictures(file, arrays, prefix) for split, prefix in prefixes.items()}
    classes = _classes(file, arrays, found)
    rows = {split: list(range(len(labels))) for split, (_, labels) in found.items()}
    train_labels = found["train"][1]
    whole = complete(str(file), classes, rows, train_labels.tolist(), options.split_seed)
    pictures = {}
    for split, part in whole.items():
        images, labels = found.get(split, found["train"])
        pictures[split] = (images[part], labels[part])
    return from_arrays(str(file), classes, pictures, options)


def _arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    try:
        if file.exists() and not file.is_file():
            raise ValueError("no regular file")  # noqa: TRY301 - a pipe would wait
        most = min(MAX_BYTES, memory())
        with zipfile.ZipFile(file) as archive:
            total = sum(info.file_size for info in archive.infolist())
            for name in archive.namelist():
                with archive.open(name) as f:
                    total = max(total, _announced(f))
            if total > most:
                raise ValueError(  # noqa: TRY301
                    f"it announces {total / 2**30:.0f} GiB unpacked, more than "
                    f"{most / 2**30:.0f} GiB; use image files for so large a set"
                )
        with np.load(file, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except Exception as e:  # zipfile, zlib and NumPy's parser of headers raise many kinds
        why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        raise DataError(f"{file} cannot be read as a NumPy archive: {why}") from None


def _announced(f: IO[bytes]) -> int:
    """Bytes of an array, by its header."""
    version = npy.read_magic(f)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(f)
    return int(math.prod(shape)) * dtype.itemsize


def _pictures(file: Path, arrays: dict[str, NDArray[np.generic]], prefix: str) -> Pictures:
    try:
        images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    except KeyError as e:
        raise DataError(f"{file}: {e} is missing; {WANTED}") from None
    form = (images.ndim == 4 and images.shape[3] == 3) or images.ndim == 3
    if images.dtype != np.uint8 or not form:
        told = f"{images.dtype} {images.shape}"
        raise DataError(f"{file}: {prefix}images is {told}; {WANTED}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        told = f"{labels.dtype} {labels.shape} for {len(images)} images"
        raise DataError(f"{file}: {prefix}labels is {told}; {WANTED}")
    return images.astype(np.uint8, copy=False), labels.astype(np.int64)


def _classes(
    file: Path, arrays: dict[str, NDArray[np.generic]], found: dict[str, Pictures]
) -> list[str]:
    if "classes" not in arrays:
        labels = [int(label) for _, part in found.values() for label in np.unique(part)]
        return numbered(str(file), max(labels, default=0), len(set(labels)))
    names = arrays["classes"]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{file}: classes is {names.dtype} {names.shape}, not a list of text")
    return [str(name) for name in names]
