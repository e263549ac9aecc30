"""Timm's own readers: torch/NAME, hfds/NAME, tfds/NAME and wds/NAME, with :ROOT after it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from timm.data.dataset_factory import create_dataset

from noahnas.data.dataset import READERS, SPLITS, Dataset, LoadOptions, numbered
from noahnas.data.folder import load_folder
from noahnas.data.holdout import complete
from noahnas.data.image import Pixels, UnreadableImageError, read_pixels
from noahnas.data.shards import shard_items
from noahnas.data.store import Item, from_items
from noahnas.data.streams import stream_items
from noahnas.errors import DataError

WORDS = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}
TORCH_WORDS = {"train": ("train",), "val": (), "test": ("validation",)}  # two halves
FOLDERS = ("torch/image_folder", "torch/folder")  # torchvision's reader of what `folder` reads
ABSENT = re.compile(r"split|not found|no such", re.IGNORECASE)  # said where there is no such split
NEEDED = {"hfds": "datasets", "tfds": "tensorflow-datasets", "wds": "webdataset"}  # packages


def load_timm(argument: str, options: LoadOptions) -> Dataset:
    """One of timm's readers: torch/cifar10:ROOT, hfds/OWNER/NAME, tfds/NAME:ROOT, wds/NAME:ROOT.

    Nothing is downloaded but what the reader's own library fetches (hfds, tfds). torchvision sets
    have a train and a held-out part, which is test here; a missing val or test is taken out of
    train, 20 % of each class, by `options.split_seed`.

    Raises:
        DataError: if the reader is unknown, its package is not installed, or it finds nothing.
    """
    name, _, root = argument.partition(":")
    kind = name.partition("/")[0]
    if kind not in READERS or "/" not in name:
        told = ", ".join(f"{reader}/NAME" for reader in READERS)
        raise DataError(f"'{argument}' names none of timm's readers: {told}, with :ROOT after it")
    if name in FOLDERS:
        return load_folder(root, options)
    if kind == "wds" and not Path(root or ".").is_dir():  # webdataset would run `pipe:COMMAND`
        raise DataError(f"{argument}: {root} is no directory; shards are read from one")
    opened = {}
    for split in SPLITS:
        reader = _opened(kind, name, root, split)
        if reader is not None:
            opened[split] = reader
        elif split == "train":
            raise DataError(f"{argument}: {_why_none(kind, name, root)}")
    if kind in ("torch", "hfds"):
        found = {split: _random_access(kind, argument, r) for split, r in opened.items()}
    elif kind == "wds":
        found = {split: shard_items(split, r, options) for split, r in opened.items()}
    else:
        stamp = f"{_stamp(Path(root))} {options.size} {options.interpolation}"
        found = {
            split: stream_items(f"{argument} {split}", r, stamp, options)
            for split, r in opened.items()
        }
    labels = [item.label for item in found["train"]]
    classes = _classes(argument, opened["train"], labels)
    whole = complete(argument, classes, found, labels, options.split_seed)
    return from_items(argument, classes, whole, options)


def _opened(kind: str, name: str, root: str, split: str) -> Any:
    """What timm makes of a split; None if there is none."""
    for word in (TORCH_WORDS if kind == "torch" else WORDS)[split]:
        try:
            # tfds decodes by itself; of the others the bytes are wanted, or the image as it is
            mode = "RGB" if kind == "tfds" else ""
            return create_dataset(name, root or None, split=word, input_img_mode=mode)
        except ImportError as e:
            raise DataError(
                f"timm's reader {kind}/ needs a package: pip install {NEEDED.get(kind, e.name)}"
            ) from None
        except (Exception, SystemExit) as e:  # timm and the libraries below it raise many kinds
            if split != "train" and not ABSENT.search(str(e)):  # of train, `_why_none` tells
                raise DataError(
                    f"{name}: the {split} split is there, but broken: {_said(e)}"
                ) from e
    return None


def _said(error: BaseException) -> str:
    """The first line of an error, or its kind."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _why_none(kind: str, name: str, root: str) -> str:
    """What timm says of the train split, in one line."""
    try:
        create_dataset(name, root or None, split="train")
    except (Exception, SystemExit) as e:
        where = "" if root else f"; name its directory: {name}:ROOT"
        said = _said(e).partition(" You can use download")[0]  # there is no such option here
        return f"timm's reader {kind}/ finds no train split: {said}{where}"
    return "no train split"


def _random_access(kind: str, argument: str, opened: Any) -> list[Item]:
    """Items of a set whose images can be read in any order."""
    if kind == "hfds":
        labels = [int(label) for label in opened.reader.iter_targets()]
        stamp = str(opened.reader.dataset._fingerprint)
        read: Callable[[int], Any] = partial(_stream_bytes, opened.reader)
    else:
        labels = _torch_labels(opened)
        stamp = _stamp(Path(getattr(opened, "root", "")))
        read = partial(_torch_image, opened)
    return [
        Item(f"{argument} image {i}", label, partial(_read, read, i), stamp)
        for i, label in enumerate(labels)
    ]


def _torch_labels(opened: Any) -> list[int]:
    for attribute in ("targets", "_labels", "labels"):
        if hasattr(opened, attribute):
            return [int(label) for label in getattr(opened, attribute)]
    return [int(opened[i][1]) for i in range(len(opened))]


def _torch_image(opened: Any, index: int) -> Any:
    return opened[index][0]  # a PIL image


def _stream_bytes(reader: Any, index: int) -> bytes:
    with reader[index][0] as stream:
        data: bytes = stream.read()
        return data


def _read(
    read: Callable[[int], Any], index: int, size: tuple[int, int], interpolation: str
) -> Pixels:
    try:
        source = read(index)
    except (OSError, SyntaxError, ValueError) as e:
        raise UnreadableImageError(str(e) or type(e).__name__) from None
    return read_pixels(source, size, interpolation)


def _stamp(root: Path) -> str:
    """Names, sizes and times of change of all files below a directory."""
    if not root.is_dir():
        return str(root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return " ".join(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)


def _classes(name: str, opened: Any, labels: Sequence[int]) -> list[str]:
    """Names in label order; numbers where the reader knows none."""
    reader = getattr(opened, "reader", opened)
    index: Mapping[str, int] = getattr(reader, "class_to_idx", None) or {}
    names = {int(i): str(word) for word, i in index.items()}
    there = {*labels, *names}
    numbers = numbered(name, max(there, default=0), len(there))
    return [names.get(i, number) for i, number in enumerate(numbers)]
