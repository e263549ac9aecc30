"""Image folders: DIR/train|val|test/CLASS/*, or DIR/CLASS/* split by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from noahnas.data.dataset import SPLITS, Dataset, LoadOptions, Split, stratified
from noahnas.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
SHARE = 0.2  # of the images held out as val, and again as test, where no folder holds them
Item = tuple[Path, int]  # image file, label


def load_folder(argument: str, options: LoadOptions) -> Dataset:
    """Read an image folder.

    With DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS the splits are as given; a missing val or
    test is taken out of train, 20 % of each class. Otherwise DIR/CLASS is split 60/20/20, each
    class in proportion, by `options.split_seed`.

    Raises:
        DataError: if there is no image, a class differs between splits, or a file is unreadable.
    """
    root = Path(argument)
    if not root.is_dir():
        raise DataError(f"{root} is no directory")
    given = [split for split in SPLITS if (root / split).is_dir()]
    if given and "train" not in given:
        raise DataError(f"{root} has {' and '.join(given)} but no train folder")
    classes = tuple(_folders(root / "train" if given else root))
    found = {split: _items(root / split, classes) for split in given}
    if not given:
        found = {"train": _items(root, classes)}
    if not found["train"]:
        raise DataError(f"{root}: no image in {'train/CLASS' if given else 'CLASS'} folders")
    found = _complete(found, classes, np.random.default_rng(options.split_seed), root)
    return from_files(str(root), classes, found, options)


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _items(root: Path, classes: Sequence[str]) -> list[Item]:
    names = _folders(root)
    strange = sorted(set(names) - set(classes))
    if strange:
        raise DataError(f"{root} has classes that train lacks: {', '.join(strange[:5])}")
    return [
        (path, classes.index(name))
        for name in names
        for path in sorted((root / name).rglob("*"))
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]


def _complete(
    found: dict[str, list[Item]], classes: Sequence[str], rng: np.random.Generator, root: Path
) -> dict[str, list[Item]]:
    """Take the splits that are missing out of train."""
    missing = [split for split in ("val", "test") if split not in found]
    if not missing:
        return found
    items = found["train"]
    labels = np.array([label for _, label in items], dtype=np.int64)
    few = [name for i, name in enumerate(classes) if (labels == i).sum() <= len(missing)]
    if few:
        raise DataError(
            f"{root}: too few images of {', '.join(few[:5])} to hold out {' and '.join(missing)}: "
            f"at least {len(missing) + 1} needed in each class"
        )
    parts = stratified(labels, [SHARE] * len(missing), rng)
    taken = {name: [items[i] for i in part] for name, part in zip(missing, parts, strict=False)}
    return found | taken | {"train": [items[i] for i in parts[-1]]}


def from_files(
    name: str, classes: Sequence[str], found: Mapping[str, Sequence[Item]], options: LoadOptions
) -> Dataset:
    """A data set of image files.

    Args:
        name: of the data set, in messages and results.
        classes: names, in label order.
        found: files and labels of train, val and test.
        options: how to read them.

    Raises:
        DataError: naming the unreadable files, or what else is wrong.
    """
    splits = decode(found, options.size)
    return Dataset(name, tuple(classes), **splits, absent_ok=options.absent_ok)


def decode(found: Mapping[str, Sequence[Item]], size: tuple[int, int]) -> dict[str, Split]:
    """Read images in parallel, as RGB, upright, resized directly to `size` (height, width).

    Raises:
        DataError: naming the unreadable files of all splits.
    """
    files = [path for items in found.values() for path, _ in items]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda path: read_image(path, size), files))
    broken = [image for image in images if isinstance(image, str)]
    if broken:
        more = f"; {len(broken) - 3} more" if len(broken) > 3 else ""
        raise DataError(f"unreadable images: {'; '.join(broken[:3])}{more}: mend or remove them")
    splits, start = {}, 0
    for name, items in found.items():
        pixels = np.zeros((len(items), 3, *size), np.uint8)  # (n, 3, H, W)
        for row, image in zip(pixels, images[start : start + len(items)], strict=True):
            row[:] = np.moveaxis(np.asarray(image), 2, 0)  # (H, W, 3) -> (3, H, W)
        labels = torch.tensor([label for _, label in items], dtype=torch.int64)  # (n)
        splits[name] = Split(torch.from_numpy(pixels), labels)
        start += len(items)
    return splits


def read_image(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | str:
    """One image as (H, W, 3) uint8, or a sentence that says why it cannot be read."""
    try:
        with Image.open(path) as raw:
            image = _eight_bits(ImageOps.exif_transpose(raw)).convert("RGB")
            return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))
    except UnidentifiedImageError:
        return f"{path} (no image)"
    except (OSError, SyntaxError, ValueError) as e:
        return f"{path} ({getattr(e, 'strerror', None) or str(e) or type(e).__name__})"
    except Image.DecompressionBombError:
        return f"{path} (too many pixels)"


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit; Pillow's own conversion would cut it off at 255.

    Raises:
        ValueError: if pixels are floating-point.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)  # (H, W), in 0…65535
    return Image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8))
