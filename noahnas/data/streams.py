"""Sets that can only be read from first to last, tfds/NAME:ROOT.

A first pass tells the labels, which the cache keeps; its images wait in a file without a name,
which is gone with the process, until the store has put them in their splits. Later starts know the
labels and need no images, unless the decoded ones are gone: then the set is read again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from noahnas.data.cache import cache_dir
from noahnas.data.dataset import LoadOptions
from noahnas.data.image import Pixels, UnreadableImageError, read_pixels
from noahnas.data.store import Item
from noahnas.errors import DataError
from noahnas.files import write_atomic
from noahnas.progress import Progress

TOLD = 100  # images between two lines of progress
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pass:
    """What one pass over a stream gave; row i of `images` is image i, zeros if it is broken."""

    labels: list[int]
    images: Any  # (n, H, W, 3) uint8, mapped from a file without a name
    broken: Mapping[int, str]  # why image i cannot be read


class _Stream:
    """A split whose images are read, all at once, when the first of them is asked for."""

    def __init__(
        self, name: str, stream: Iterable[Any], labels: list[int] | None, options: LoadOptions
    ) -> None:
        self.name, self.stream, self.options = name, stream, options
        self.labels = labels  # as an earlier pass found them
        self.found: _Pass | None = None
        self.lock = Lock()  # the store asks from several threads

    def once(self) -> _Pass:
        with self.lock:
            if self.found is None:
                found = _one_pass(self.name, self.stream, self.options)
                if self.labels is not None and found.labels != self.labels:
                    raise DataError(
                        f"{self.name}: its labels are not those that were read first; delete "
                        f"{_folder()} if the set was changed"
                    )
                self.found = found
            return self.found

    def read(self, index: int, _size: tuple[int, int], _interpolation: str) -> Pixels:
        found = self.once()
        if index in found.broken:
            raise UnreadableImageError(found.broken[index])
        return np.array(found.images[index])  # (H, W, 3), resized already


def stream_items(name: str, stream: Iterable[Any], stamp: str, options: LoadOptions) -> list[Item]:
    """The images of a stream, in its order.

    Args:
        name: of the set and its split, in messages.
        stream: gives image and label; iterated a second time only if decoded images are gone.
        stamp: changes when the set does.
        options: size and interpolation to read at, and who is told of the progress.

    Raises:
        DataError: if the stream breaks off, or the cache cannot be written.
    """
    key = hashlib.sha256(f"{name}\0{stamp}".encode()).hexdigest()[:20]
    path = _folder() / f"{key}.json"
    labels = _kept_labels(name, path)
    read_once = _Stream(name, stream, labels, options)
    try:
        if labels is None:
            labels = read_once.once().labels
            about = {"labels": labels, "digest": _digest(labels)}
            write_atomic(path, json.dumps(about).encode())
    except OSError as e:
        raise DataError(
            f"{name}: labels cannot be kept in {path.parent}: {e.strerror or e}; name another "
            "directory in the environment variable NOAHNAS_CACHE"
        ) from e
    return [
        Item(f"{name} {i}", label, partial(read_once.read, i), key)
        for i, label in enumerate(labels)
    ]


def _folder() -> Path:
    return cache_dir() / "streams"


def _digest(labels: list[int]) -> str:
    return hashlib.sha256(json.dumps(labels).encode()).hexdigest()


def _kept_labels(name: str, path: Path) -> list[int] | None:
    """What an earlier pass found; None if there was none, or its file is damaged."""
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        labels: list[int] = about["labels"]
        if about["digest"] == _digest(labels):
            return labels
    except (OSError, ValueError, KeyError, TypeError):
        pass
    logger.warning("%s: the labels in %s are damaged; reading the set anew", name, path)
    return None


def _one_pass(name: str, stream: Iterable[Any], options: LoadOptions) -> _Pass:
    """Read a stream to its end, its images resized into a file of the cache without a name."""
    labels: list[int] = []
    broken: dict[int, str] = {}
    shape = (*options.size, 3)
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as f:
        for image, label in _until_it_breaks(name, stream):
            try:
                pixels = read_pixels(image, options.size, options.interpolation)
            except UnreadableImageError as e:
                broken[len(labels)] = str(e)
                pixels = np.zeros(shape, np.uint8)
            f.write(np.ascontiguousarray(pixels).data)
            labels.append(int(label))
            if len(labels) % TOLD == 0:
                total = len(labels) + 1  # a stream does not tell how long it is
                options.report(Progress(name, len(labels), total, "images read"))
        f.flush()
        if not labels:
            return _Pass([], np.zeros((0, *shape), np.uint8), {})
        images = np.memmap(f, np.uint8, mode="r", shape=(len(labels), *shape))  # (n, H, W, 3)
    return _Pass(labels, images, broken)


def _until_it_breaks(name: str, stream: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    count = 0
    rows = iter(stream)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as e:  # readers decode by libraries of their own, with errors of their own
            said = next(iter(str(e).strip().splitlines()), "") or type(e).__name__
            raise DataError(f"{name}: the stream breaks off after {count} images: {said}") from e
        count += 1
        yield row[0], row[1]
