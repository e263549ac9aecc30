"""Image folders: DIR/train|val|test/CLASS/*, or DIR/CLASS/* split by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noahnas.data.dataset import SPLITS, Dataset, LoadOptions
from noahnas.data.holdout import complete
from noahnas.data.store import from_files
from noahnas.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
Item = tuple[Path, int]  # image file, label


def load_folder(argument: str, options: LoadOptions) -> Dataset:
    """A directory of images: DIR/train|val|test/CLASS, or DIR/CLASS, split by seed.

    With DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS the splits are as given; a missing val or
    test is taken out of train, 20 % of each class. Otherwise DIR/CLASS is split 60/20/20, each
    class in proportion, by `options.split_seed`.

    Raises:
        DataError: if there is no image, a class differs between splits, or a file is unreadable.
    """
    if not argument:
        raise DataError("name the directory: folder:DIR")
    root = Path(argument)
    if not root.is_dir():
        raise DataError(f"{root} is no directory")
    given = [split for split in SPLITS if (root / split).is_dir()]
    if given and "train" not in given:
        raise DataError(f"{root} has {' and '.join(given)} but no train folder")
    classes = _folders(root / "train" if given else root)
    found = {split: _items(root / split, classes) for split in given}
    if not given:
        found = {"train": _items(root, classes)}
    if not found["train"]:
        raise DataError(f"{root}: no image in {'train/CLASS' if given else 'CLASS'} folders")
    labels = [label for _, label in found["train"]]
    whole = complete(str(root), classes, found, labels, options.split_seed)
    return from_files(str(root), classes, whole, options)


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
