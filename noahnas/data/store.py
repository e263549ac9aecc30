"""The store of decoded images: each set is decoded once, in parallel, and kept on disk as uint8.

A directory of the cache holds one decoded set: `pixels.u8`, the images of train, val and test in
this order, (n, 3, H, W); and `set.json`, written last but for the rename that puts the directory
in place. Images are mapped into memory, never loaded as a whole. The set's digest is checked
whenever it is opened, so a damaged one is found and decoded anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from noahnas.data.cache import cache_dir
from noahnas.data.dataset import SPLITS, Dataset, LoadOptions, Notes, Split, check
from noahnas.data.image import Pixels, UnreadableImageError, read_pixels
from noahnas.data.overlap import picture_key, refuse, shared
from noahnas.errors import DataError
from noahnas.files import process_name, read_sealed_json, running, sealed_json
from noahnas.progress import Progress

FORMAT = 1  # of the store; a new one makes old directories unused
WORKERS = min(8, os.cpu_count() or 1)
WAITING = 8 * WORKERS  # images decoded ahead of the one that is written
TOLD = 100  # images between two lines of progress
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One image of a source; reading it may raise UnreadableImageError."""

    name: str  # in messages
    label: int
    read: Callable[[tuple[int, int], str], Pixels]  # to a size, by an interpolation
    stamp: str  # changes when the image does
    place: str = ""  # what identifies it; by default its name


def file_item(path: Path, label: int) -> Item:
    """An image file; its size and times of change tell whether it has changed."""
    try:
        found = path.stat()
        stamp = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    except OSError as e:  # reading it will say so, too
        stamp = f"error {e.errno}"
    place = os.path.abspath(path)  # noqa: PTH100 - resolving links would cost a call a file
    return Item(str(path), label, partial(read_pixels, path), stamp, place)


def from_files(
    name: str,
    classes: Sequence[str],
    found: Mapping[str, Sequence[tuple[Path, int]]],
    options: LoadOptions,
    *,
    fixed: bool = False,
    absent_ok: bool = False,
    ignored: Sequence[Path] = (),
) -> Dataset:
    """A data set of image files; arguments and errors as `from_items`."""
    items = {split: [file_item(*item) for item in found[split]] for split in SPLITS}
    return from_items(
        name, classes, items, options, fixed=fixed, absent_ok=absent_ok, ignored=ignored
    )


def from_items(
    name: str,
    classes: Sequence[str],
    found: Mapping[str, Sequence[Item]],
    options: LoadOptions,
    *,
    fixed: bool = False,
    absent_ok: bool = False,
    ignored: Sequence[Path] = (),
) -> Dataset:
    """A data set of images that are decoded one by one, from the cache if they were before.

    Args:
        name: of the data set, in messages and results.
        classes: names, in label order.
        found: the images of train, val and test.
        options: how to read them.
        fixed: the splits are those of a published list: pictures that stand in two of them are
            counted and kept, for numbers that compare.
        absent_ok: whether train may lack a class, as some published lists do.
        ignored: files left aside as no images, for the notes.

    Raises:
        DataError: naming the unreadable images, or the pictures that stand in two splits, unless
            `options.on_error` is "skip"; if the set is unfit (`Dataset`), or the cache unusable.
    """
    labels = {s: np.array([item.label for item in found[s]], np.int64) for s in SPLITS}
    check(name, classes, labels, absent_ok)
    key = _key(classes, found, options, fixed)
    folder = cache_dir() / "images" / key
    try:
        if folder.is_dir():
            kept = _open(name, classes, folder, options, absent_ok)
            if kept:
                return _noting(kept, ignored)
            logger.warning("%s: the decoded images in %s are damaged; decoding anew", name, folder)
            shutil.rmtree(folder)
        decoded = _decode(name, classes, found, options, folder, fixed, absent_ok)
        return _noting(decoded, ignored)
    except OSError as e:
        raise DataError(
            f"{name}: decoded images cannot be kept in {folder.parent}: {e.strerror or e}; name "
            "another directory in the environment variable NOAHNAS_CACHE"
        ) from e


def _noting(data: Dataset, ignored: Sequence[Path]) -> Dataset:
    """The same data set, its digest not computed again, with what was left aside in its notes."""
    digest = data.digest
    noted = replace(data, notes=replace(data.notes, ignored=tuple(map(str, ignored))))
    vars(noted)["digest"] = digest
    return noted


def _key(
    classes: Sequence[str], found: Mapping[str, Sequence[Item]], options: LoadOptions, fixed: bool
) -> str:
    """20 hex digits over everything that decides what the store holds."""
    decoded = [options.size, options.interpolation, options.on_error]
    about = [FORMAT, PIL.__version__, *decoded, fixed, list(classes)]
    h = hashlib.sha256(json.dumps(about).encode())
    for split in SPLITS:
        h.update(f"\n{split}\n".encode())
        for item in found[split]:
            line = f"{item.place or item.name}\0{item.label}\0{item.stamp}\n"
            h.update(line.encode(errors="surrogateescape"))
    return h.hexdigest()[:20]


def _open(
    name: str, classes: Sequence[str], folder: Path, options: LoadOptions, absent_ok: bool
) -> Dataset | None:
    """The set that a directory holds; None if it is damaged."""
    try:
        about = read_sealed_json((folder / "set.json").read_bytes())
        height, width = options.size
        labels = {split: np.array(about["labels"][split], np.int64) for split in SPLITS}
        shape = (sum(len(found) for found in labels.values()), 3, height, width)
        if (folder / "pixels.u8").stat().st_size != int(np.prod(shape)):
            return None
        told = tuple(about["skipped"]), about["overlap"], about["kept"]
        notes = Notes(*told, cache=str(folder), decoded=False)
        mapped = _mapped(folder, labels, shape)
        data = Dataset(name, tuple(classes), **mapped, notes=notes, absent_ok=absent_ok)
    except (ValueError, KeyError, TypeError, FileNotFoundError, DataError):
        return None
    total = shape[0]
    options.report(Progress("images", 0, total, "checking the decoded ones"))
    if data.digest != about.get("digest"):
        return None
    options.report(Progress("images", total, total, "decoded before"))
    return data


def _mapped(
    folder: Path, labels: Mapping[str, NDArray[np.int64]], shape: tuple[int, ...]
) -> dict[str, Any]:
    """The splits, their images mapped from the disk side by side."""
    mapped = np.memmap(folder / "pixels.u8", np.uint8, mode="c", shape=shape)  # (n, 3, H, W)
    images, splits, start = torch.from_numpy(mapped), {}, 0
    for split in SPLITS:
        stop = start + len(labels[split])
        splits[split] = Split(images[start:stop], torch.from_numpy(labels[split]))
        start = stop
    return splits


def _decode(
    name: str,
    classes: Sequence[str],
    found: Mapping[str, Sequence[Item]],
    options: LoadOptions,
    folder: Path,
    fixed: bool,
    absent_ok: bool,
) -> Dataset:
    """Decode all images into a new directory beside `folder`, then put it in place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    count = sum(len(items) for items in found.values())
    need, free = count * 3 * int(np.prod(options.size)), shutil.disk_usage(folder.parent).free
    if need > free:
        raise OSError(f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    _sweep(folder.parent)
    prefix = f".{folder.name}.{process_name()}."
    beside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        rows = _write(beside / "pixels.u8", found, options)
        if rows.broken and options.on_error == "stop":
            raise DataError(_told(name, rows.broken))
        keep, overlap = rows, 0
        if fixed or options.on_error == "skip":
            doubled = shared(rows.keys)
            overlap = sum(len(which) for which in doubled.values())
            if overlap and not fixed:
                keep = _without(beside / "pixels.u8", rows, doubled, options.size)
        else:
            refuse(name, rows.keys, rows.names)
        labels = {split: np.array(keep.labels[split], np.int64) for split in SPLITS}
        left_out = f" ({len(rows.broken)} unreadable images were left out)" if rows.broken else ""
        check(name + left_out, classes, labels, absent_ok)
        shape = (sum(len(part) for part in labels.values()), 3, *options.size)
        notes = Notes(tuple(rows.broken), overlap, fixed, cache=str(folder))
        mapped = _mapped(beside, labels, shape)
        data = Dataset(name, tuple(classes), **mapped, notes=notes, absent_ok=absent_ok)
        about = {
            "digest": data.digest,
            "classes": list(classes),
            "labels": {split: labels[split].tolist() for split in SPLITS},
            "skipped": rows.broken,
            "overlap": overlap,
            "kept": fixed,
        }
        (beside / "set.json").write_bytes(sealed_json(about, indent=None))
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process has put the same set there
                raise
        return data
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what decodings of this machine that were killed have left here."""
    for left in folder.glob(".*.*.*"):
        if running(left.name.split(".")[2]) is False:
            shutil.rmtree(left, ignore_errors=True)


@dataclass(frozen=True)
class _Rows:
    """What was written, per split and in order."""

    labels: Mapping[str, list[int]]
    names: Mapping[str, list[str]]
    keys: Mapping[str, list[bytes]]
    broken: list[str]


def _write(path: Path, found: Mapping[str, Sequence[Item]], options: LoadOptions) -> _Rows:
    """Decode in parallel, write in order; only a few images are in memory at a time."""
    rows = _Rows({s: [] for s in SPLITS}, {s: [] for s in SPLITS}, {s: [] for s in SPLITS}, [])
    total, done = sum(len(items) for items in found.values()), 0
    with path.open("wb") as f, ThreadPoolExecutor(WORKERS) as pool:
        for split in SPLITS:
            for item, pixels in _in_order(pool, found[split], options):
                done += 1
                if isinstance(pixels, str):
                    rows.broken.append(f"{item.name} ({pixels})")
                else:
                    f.write(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)).data)  # (3, H, W)
                    rows.labels[split].append(item.label)
                    rows.names[split].append(item.name)
                    rows.keys[split].append(picture_key(pixels))
                if done % TOLD == 0 or done == total:
                    note = f"{len(rows.broken)} unreadable" if rows.broken else "decoded"
                    options.report(Progress("images", done, total, note))
        f.flush()
        os.fsync(f.fileno())
    return rows


def _in_order(
    pool: ThreadPoolExecutor, items: Sequence[Item], options: LoadOptions
) -> Iterator[tuple[Item, Pixels | str]]:
    waiting: deque[tuple[Item, Future[Pixels | str]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(_pixels_of, item, options)))
            if len(waiting) >= WAITING:
                first, pixels = waiting.popleft()
                yield first, pixels.result()
        while waiting:
            first, pixels = waiting.popleft()
            yield first, pixels.result()
    finally:
        for _, pixels in waiting:
            pixels.cancel()


def _pixels_of(item: Item, options: LoadOptions) -> Pixels | str:
    try:
        return item.read(options.size, options.interpolation)
    except UnreadableImageError as e:
        return str(e)


def _without(
    path: Path, rows: _Rows, doubled: Mapping[str, list[int]], size: tuple[int, int]
) -> _Rows:
    """Leave the doubled rows of train and val out of the file, and out of what it holds."""
    bytes_each = 3 * int(np.prod(size))
    shorter = path.with_suffix(".kept")
    labels: dict[str, list[int]] = {s: [] for s in SPLITS}
    with path.open("rb") as old, shorter.open("wb") as new:
        for split in SPLITS:
            out = set(doubled.get(split, ()))
            for i, label in enumerate(rows.labels[split]):
                row = old.read(bytes_each)
                if i not in out:
                    new.write(row)
                    labels[split].append(label)
    shorter.replace(path)
    return replace(rows, labels=labels)


def _told(name: str, broken: Sequence[str]) -> str:
    more = f"; {len(broken) - 3} more" if len(broken) > 3 else ""
    count = "1 unreadable image" if len(broken) == 1 else f"{len(broken)} unreadable images"
    return (
        f"{name}: {count}: {'; '.join(broken[:3])}{more}: mend or remove them, or leave them out "
        "with --on-error skip"
    )
