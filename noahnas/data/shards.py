"""WebDataset shards, wds/NAME:ROOT: images are read where they lie in the tar files.

timm reads which shards make a split from `_info.json`; we read the shards. timm's own loop leaves
out what it cannot decode without a word, where here every fault is named.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from noahnas.data.dataset import LoadOptions
from noahnas.data.image import Pixels, UnreadableImageError, read_pixels
from noahnas.data.store import Item
from noahnas.errors import DataError
from noahnas.progress import Progress

IMAGES = (
    "jpg",
    "jpeg",
    "png",
    "webp",
)  # endings of the images of a sample, the first that is there
NAME = re.compile(r"((?:.*/|)[^.]+)\.([^/]*)")  # key and ending, as WebDataset has them
META = re.compile(r"__[^/]*__($|/)")  # members that tell of the shard and are no sample


@dataclass(frozen=True)
class _Sample:
    """Consecutive members of a shard whose names differ only in the ending."""

    key: str
    members: Mapping[str, tarfile.TarInfo]  # by ending
    label: int


def shard_items(split: str, opened: Any, options: LoadOptions) -> list[Item]:
    """The images of a split in the order of its shards; none is decoded yet.

    Args:
        split: its name, in progress.
        opened: what timm makes of it; its reader knows the shards and how many samples they hold.
        options: who is told of the progress.

    Raises:
        DataError: naming the shard that is missing, no tar file or cut short, that holds other
            than the samples that `_info.json` promises, or a sample without a label.
    """
    reader = opened.reader
    about = reader.split_info
    try:
        shards = [Path(reader.root, inside(name)) for name in about.filenames]
        lengths = [int(length) for length in about.shard_lengths]
        int(about.num_samples)
    except (TypeError, ValueError) as e:
        raise DataError(f"{reader.root}/_info.json: the split {split} is malformed: {e}") from None
    items: list[Item] = []
    total = 0
    for i, path in enumerate(shards):
        options.report(Progress(f"{split} shards", i, len(shards), "listed"))
        samples = _samples(path, about.alt_label)
        if len(lengths) == len(shards) and len(samples) != lengths[i]:
            raise DataError(_shortfall(f"{path} holds", len(samples), lengths[i], "this shard"))
        total += len(samples)
        # a negative label in a JSON member marks a sample that is not meant to be used
        used = [s for s in samples if s.label >= 0 or not about.alt_label]
        items += _items(path, used)
    if total != about.num_samples:
        told = f"{reader.root}: the {len(shards)} shards of {split} hold"
        raise DataError(_shortfall(told, total, about.num_samples, "this split"))
    options.report(Progress(f"{split} shards", len(shards), len(shards), "listed"))
    return items


def inside(name: str) -> str:
    """A file's name, if it leads nowhere else.

    Raises:
        ValueError: if it does.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} leads out of the folder")
    return name


def _shortfall(told: str, found: int, promised: int, of: str) -> str:
    return (
        f"{told} {found} samples, {promised} by _info.json: fetch {of} anew if it was cut short, "
        "or correct _info.json"
    )


def _samples(path: Path, alt_label: str) -> list[_Sample]:
    """All samples of a shard. Members after a damaged header are not seen: the count tells."""
    try:
        with tarfile.open(path, "r:") as shard:
            grouped = groupby(_members(shard), key=lambda found: found[0])
            return [
                _sample(path, shard, key, {ending: info for _, ending, info in found}, alt_label)
                for key, found in grouped
            ]
    except tarfile.TarError as e:
        said = str(e) or type(e).__name__
        raise DataError(
            f"{path} cannot be read as a tar file ({said}): fetch it anew; a compressed one must "
            "be decompressed, for images are read where they lie"
        ) from None
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}") from None


def _members(shard: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, ending in small letters, and member."""
    for info in shard:
        named = NAME.fullmatch(info.name)
        if named and info.isreg() and not META.match(info.name):
            yield named[1], named[2].lower(), info


def _sample(
    path: Path,
    shard: tarfile.TarFile,
    key: str,
    members: Mapping[str, tarfile.TarInfo],
    alt_label: str,
) -> _Sample:
    ending = "json" if alt_label else "cls"
    if ending not in members:
        raise DataError(f"{path}: sample {key} has no label: there is no {key}.{ending}")
    stream = shard.extractfile(members[ending])
    content = stream.read() if stream else b""
    try:
        label = int(json.loads(content)[alt_label] if alt_label else content)
    except (ValueError, KeyError, TypeError, IndexError):
        where = f" under '{alt_label}'" if alt_label else ""
        raise DataError(f"{path}: {key}.{ending} holds no whole number{where}") from None
    return _Sample(key, members, label)


def _items(path: Path, samples: list[_Sample]) -> Iterator[Item]:
    found = path.stat()
    for sample in samples:
        ending = next((ending for ending in IMAGES if ending in sample.members), None)
        stamp = f"{found.st_size} {found.st_mtime_ns}"
        if ending is None:
            yield Item(f"{path}: {sample.key}", sample.label, _no_image, stamp)
        else:
            at = sample.members[ending]
            read = partial(_read, path, at.offset_data, at.size)
            stamp += f" {at.offset_data} {at.size}"
            yield Item(f"{path}: {sample.key}.{ending}", sample.label, read, stamp)


def _read(
    path: Path, offset: int, length: int, size: tuple[int, int], interpolation: str
) -> Pixels:
    try:
        with path.open("rb") as f:
            f.seek(offset)
            content = f.read(length)
    except OSError as e:
        raise UnreadableImageError(e.strerror or str(e)) from None
    return read_pixels(content, size, interpolation)


def _no_image(_size: tuple[int, int], _interpolation: str) -> Pixels:
    raise UnreadableImageError(f"none of {', '.join(f'.{ending}' for ending in IMAGES)}")
