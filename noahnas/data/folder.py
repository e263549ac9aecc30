"""Image folders: DIR/train|val|test/CLASS/*, or DIR/CLASS/* split by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noahnas.data.dataset import SPLIT_WORDS, SPLITS, Dataset, LoadOptions
from noahnas.data.holdout import complete
from noahnas.data.store import from_files
from noahnas.errors import DataError

ENDINGS = "png jpg jpeg jpe jfif webp bmp gif tif tiff ppm pgm pnm pbm jp2 avif"
SUFFIXES = frozenset(f".{ending}" for ending in ENDINGS.split())
Item = tuple[Path, int]  # image file, label


def load_folder(argument: str, options: LoadOptions) -> Dataset:
    """A directory of images: DIR/train|val|test/CLASS, or DIR/CLASS, split by seed.

    With DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS (or valid, Test, …) the splits are
    as given; a missing val or
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
    given = _splits(root)
    if given and "train" not in given:
        raise DataError(f"{root} has {' and '.join(given)} but no train folder")
    ignored: list[Path] = []
    classes = _folders(given["train"] if given else root)
    found = {split: _items(folder, classes, ignored) for split, folder in given.items()}
    if not given:
        found = {"train": _items(root, classes, ignored)}
    if not found["train"]:
        raise DataError(f"{root}: no image in {'train/CLASS' if given else 'CLASS'} folders")
    labels = [label for _, label in found["train"]]
    whole = complete(str(root), classes, found, labels, options.split_seed)
    return from_files(str(root), classes, whole, options, ignored=ignored)


def _splits(root: Path) -> dict[str, Path]:
    """The directories of splits, by any of their names in any case; empty if there are none.

    Raises:
        DataError: if two directories mean one split, or classes stand beside splits.
    """
    found: dict[str, Path] = {}
    others = []
    for name in _folders(root):
        split = SPLIT_WORDS.get(name.lower())
        if split is None:
            others.append(name)
        elif split in found:
            raise DataError(f"{root}: {found[split].name} and {name} are both {split} folders")
        else:
            found[split] = root / name
    if found and others:
        told = ", ".join(folder.name for folder in found.values())
        raise DataError(
            f"{root} holds splits ({told}) beside {', '.join(others[:3])}; put classes into the "
            "folders of splits, or splits elsewhere"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _items(root: Path, classes: Sequence[str], ignored: list[Path]) -> list[Item]:
    """Images below the folders of classes; what is neither an image nor hidden is `ignored`."""
    names = _folders(root)
    strange = sorted(set(names) - set(classes))
    if strange:
        raise DataError(f"{root} has classes that train lacks: {', '.join(strange[:5])}")
    found = []
    for name in names:
        for path in sorted((root / name).rglob("*")):
            if any(part.startswith(".") for part in path.relative_to(root).parts):
                continue
            if path.suffix.lower() in SUFFIXES and path.is_file():
                found.append((path, classes.index(name)))
            elif path.is_file():
                ignored.append(path)
    return found
