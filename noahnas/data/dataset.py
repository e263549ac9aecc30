"""Dataset: train, val and test images of named classes, decoded once to the backbone's size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noahnas.backbone import Preprocess
from noahnas.errors import DataError, unknown
from noahnas.progress import Report, silent
from noahnas.registry import installed, resolve

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels."""

    images: Tensor  # (n, 3, H, W), uint8
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
    absent_ok: bool = field(default=False, kw_only=True)  # whether train may lack a class

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(
                f"{self.name}: one class ({', '.join(self.classes)}); at least two needed"
            )
        for split in SPLITS:
            labels = self.split(split).labels
            if not len(labels):
                raise DataError(f"{self.name}: the {split} split is empty")
            if int(labels.min()) < 0 or int(labels.max()) >= len(self.classes):
                raise DataError(
                    f"{self.name}: a label of {split} is not in 0…{len(self.classes) - 1}"
                )
        absent = set(range(len(self.classes))) - set(self.train.labels.tolist())
        if absent and not self.absent_ok:
            names = ", ".join(self.classes[i] for i in sorted(absent))
            raise DataError(f"{self.name}: no train image of {names}")

    def split(self, name: str) -> Split:
        """A split by name: train, val or test."""
        found: Split = getattr(self, name)
        return found

    @cached_property
    def digest(self) -> str:
        """16 hex digits over class names, pixels and labels of all splits."""
        h = hashlib.sha256("\0".join(self.classes).encode())
        for name in SPLITS:
            split = self.split(name)
            h.update(f"{name} {tuple(split.images.shape)}".encode())
            h.update(split.images.contiguous().numpy().tobytes())
            h.update(split.labels.numpy().tobytes())
        return h.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Task:
    """A data set, how the backbone wants to be fed with it, and where that happens."""

    data: Dataset
    preprocess: Preprocess
    device: torch.device


def merge(*splits: Split) -> Split:
    """Several splits as one."""
    return Split(torch.cat([s.images for s in splits]), torch.cat([s.labels for s in splits]))


@dataclass(frozen=True)
class LoadOptions:
    """How a data source is to be read; every source is called as `source(argument, options)`."""

    size: tuple[int, int]  # height, width in pixels to which images are resized
    split_seed: int = 0  # decides which images go where, for sources without splits
    on_error: Literal["stop", "skip"] = "stop"  # at an unreadable image
    absent_ok: bool = False  # published splits may have no train image of a class
    report: Report = silent

    def __post_init__(self) -> None:
        if self.on_error not in ("stop", "skip"):
            raise DataError(unknown("value of on_error", self.on_error, ("stop", "skip")))


def load_data(spec: str, options: LoadOptions) -> Dataset:
    """A data set by name or path.

    Args:
        spec: a source's name ("digits"), `name:argument` ("folder:pets"), or a directory.
        options: how to read it.

    Raises:
        DataError: if the source is unknown or its data cannot be used; says what is wrong.
    """
    name, _, argument = spec.partition(":")
    if name not in installed("noahnas.data"):
        if not Path(spec).exists():
            known = unknown("data", spec, installed("noahnas.data"))
            raise DataError(f"{known}; and there is no such directory")
        name, argument = "folder", spec
    source: Any = resolve("noahnas.data", name, "data source", DataError)
    dataset: Dataset = source(argument, options)
    return dataset


def no_argument(name: str, argument: str) -> None:
    """Raise DataError if a source that takes no argument was given one."""
    if argument:
        raise DataError(f"the data source '{name}' takes no argument; leave out ':{argument}'")


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
