"""Dataset: train, val and test images of named classes, decoded once to the backbone's size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noahnas.backbone import INTERPOLATIONS, Preprocess
from noahnas.errors import DataError, unknown
from noahnas.progress import Report, silent
from noahnas.registry import installed, resolve
from noahnas.space.document import unprintable

GROUP = "noahnas.data"
SPLITS = ("train", "val", "test")
SPLIT_WORDS = {  # other words for a split, in lists and as directories
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
READERS = ("torch", "hfds", "tfds", "wds")  # prefixes that timm knows; see timm_readers.py
ENDINGS = {".csv": "csv", ".npz": "npz"}  # files that tell their source by themselves
CHUNK = 1024  # images hashed at a time


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels."""

    images: Tensor  # (n, 3, H, W), uint8; may lie on disk, mapped into memory
    labels: Tensor  # (n,), int64, in [0, classes)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, size: int, preprocess: Preprocess, device: torch.device, order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches (b, 3, H, W) and labels (b,) on `device`; the last may be smaller."""
        mean = torch.tensor(preprocess.mean, device=device).view(1, -1, 1, 1)  # (1, 3, 1, 1)
        std = torch.tensor(preprocess.std, device=device).view(1, -1, 1, 1)  # (1, 3, 1, 1)
        for start in range(0, len(self) if order is None else len(order), size):
            index = slice(start, start + size) if order is None else order[start : start + size]
            pixels = self.images[index].to(device, torch.float32) / 255  # (b, 3, H, W)
            yield (pixels - mean) / std, self.labels[index].to(device)


@dataclass(frozen=True)
class Notes:
    """What was seen while a data set was read."""

    skipped: tuple[str, ...] = ()  # unreadable images left out, each with the reason
    overlap: int = 0  # pictures of train or val that stand in a later split, too
    kept: bool = False  # whether those were kept; else they were left out of the earlier split
    ignored: tuple[str, ...] = ()  # files that are no images, by their endings
    cache: str = ""  # directory of the decoded images; empty if they are not kept
    decoded: bool = True  # now; else they were found in the cache

    def to_dict(self) -> dict[str, Any]:
        """What run.json holds of them."""
        return {
            "skipped": list(self.skipped),
            "ignored": len(self.ignored),
            "overlap": self.overlap,
            "overlap_kept": self.kept,
        }


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one task.

    Raises:
        DataError: if there are fewer than two classes, a split is empty, or a label is out of
            range.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    notes: Notes = field(default=Notes())
    absent_ok: bool = field(default=False, kw_only=True)  # whether train may lack a class

    def __post_init__(self) -> None:
        labels = {split: self.split(split).labels.numpy() for split in SPLITS}
        check(self.name, self.classes, labels, self.absent_ok)

    def split(self, name: str) -> Split:
        """A split by name: train, val or test."""
        found: Split = getattr(self, name)
        return found

    @cached_property
    def digest(self) -> str:
        """16 hex digits over class names, pixels and labels of all splits."""
        h = hashlib.sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for name in SPLITS:
            split = self.split(name)
            h.update(f"{name} {tuple(split.images.shape)}".encode())
            for part in split.images.split(CHUNK):
                h.update(part.contiguous().numpy().data)
            h.update(split.labels.numpy().tobytes())
        return h.hexdigest()[:16]


def check(
    name: str,
    classes: Sequence[str],
    labels: Mapping[str, NDArray[np.int64]],
    absent_ok: bool = False,
) -> None:
    """Raise DataError unless the labels of three splits make a data set."""
    if len(classes) < 2:
        raise DataError(f"{name}: one class ({', '.join(classes)}); at least two needed")
    for word in classes:
        if unprintable(word, ("Cc", "Cs")):
            raise DataError(f"{name}: the class {word!r} cannot be printed; rename it")
    for split in SPLITS:
        found = labels[split]
        if not len(found):
            raise DataError(f"{name}: the {split} split is empty")
        if found.min() < 0 or found.max() >= len(classes):
            odd = found[(found < 0) | (found >= len(classes))]
            raise DataError(
                f"{name}: label {odd[0]} of {split} is not in 0…{len(classes) - 1} "
                f"({len(odd)} such labels)"
            )
    twice = sorted({c for c in classes if classes.count(c) > 1}) if len(classes) < 10_000 else []
    if twice:
        raise DataError(f"{name}: two classes are called {twice[0]}")
    absent = sorted(set(range(len(classes))) - set(labels["train"].tolist()))
    if absent and not absent_ok:
        names = ", ".join(classes[i] for i in absent[:5])
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise DataError(f"{name}: no train image of {names}{more}")


@dataclass(frozen=True, eq=False)
class Task:
    """A data set, how the backbone wants to be fed with it, and where that happens."""

    data: Dataset
    preprocess: Preprocess
    device: torch.device
    precision: str = "fp32"  # of forwards (`noahnas.device`)


def merge(first: Split, second: Split) -> Split:
    """Two splits as one; no image is copied where they lie side by side, as in the cache."""
    a, b = first.images, second.images
    labels = torch.cat([first.labels, second.labels])  # (n + m)
    beside = (
        a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
        and a.storage_offset() + a.numel() == b.storage_offset()
        and a.is_contiguous()
        and b.is_contiguous()
    )
    if beside:
        images = a.as_strided((len(a) + len(b), *a.shape[1:]), a.stride())  # (n + m, 3, H, W)
        return Split(images, labels)
    return Split(torch.cat([a, b]), labels)


@dataclass(frozen=True)
class LoadOptions:
    """How a data source is to be read; every source is called as `source(argument, options)`."""

    size: tuple[int, int]  # height, width in pixels to which images are resized
    split_seed: int = 0  # decides which images go where, for sources without splits
    on_error: str = "stop"  # or "skip": at an unreadable image, or one in two splits
    report: Report = silent
    interpolation: str = "bicubic"  # of the resize, one of `noahnas.backbone.INTERPOLATIONS`

    def __post_init__(self) -> None:
        if self.on_error not in ("stop", "skip"):
            raise DataError(unknown("value of on-error", self.on_error, ("stop", "skip")))
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(unknown("interpolation", self.interpolation, INTERPOLATIONS))


def load_data(spec: str, options: LoadOptions) -> Dataset:
    """A data set by name or path.

    Args:
        spec: a source's name ("digits"), `name:argument` ("folder:pets"), a directory, a .csv or
            .npz file, or one of timm's readers ("torch/cifar10:ROOT").
        options: how to read it.

    Raises:
        DataError: if the source is unknown or its data cannot be used; says what is wrong.
    """
    name, argument = source_of(spec)
    source: Any = resolve(GROUP, name, "data source", DataError)
    dataset: Dataset = source(argument, options)
    return dataset


def source_of(spec: str) -> tuple[str, str]:
    """The source's name that a spec stands for, and the argument it gets.

    Raises:
        DataError: if there is no such source, directory or file.
    """
    name, _, argument = spec.partition(":")
    if name in installed(GROUP):
        return name, argument
    path = Path(spec)
    if path.suffix.lower() in ENDINGS:
        return ENDINGS[path.suffix.lower()], spec
    if path.is_dir():
        return "folder", spec
    if spec.partition("/")[0] in READERS:
        return "timm", spec
    if path.exists():
        raise DataError(f"{spec} is a file; name its directory, a .csv or a .npz file")
    known = unknown("data", spec, installed(GROUP))
    raise DataError(f"{known}; and there is no such directory")


def numbered(name: str, highest: int, kinds: int) -> list[str]:
    """Names of classes that have none: 0 … the highest label.

    Raises:
        DataError: if fewer than half of the labels up to the highest occur, as where labels are
            identifiers, or one is mistyped.
    """
    if highest >= 2 * kinds:
        raise DataError(
            f"{name}: the highest label is {highest}, but only {kinds} labels occur; labels count "
            "classes from 0"
        )
    return [str(i) for i in range(highest + 1)]


def no_argument(name: str, argument: str) -> None:
    """Raise DataError if a source that takes no argument was given one."""
    if argument:
        raise DataError(f"the data source '{name}' takes no argument; leave out ':{argument}'")
