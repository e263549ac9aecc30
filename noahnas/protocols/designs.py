"""The rows of micro-VTAB: what each trains, under the space's budget."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import lru_cache

import numpy as np

from noahnas.errors import NoahnasError, unknown
from noahnas.protocols.rows import MODULES, Row
from noahnas.recipe import MIXED
from noahnas.space import Arch, Space
from noahnas.space.declaration import ModuleSpace
from noahnas.strategy import make_strategy

KINDS = {  # row → kind
    "linear": "linear",
    "full": "full",
    "adapter": "adapter",
    "lora": "lora",
    "vpt": "vpt-deep",
    "max": "max",
    "middle": "middle",
    "feasible": "feasible",
    "alone": "alone",
    "random": "random",
    "noah": "noah",
}
SINGLES = ("adapter", "lora", "vpt")  # rows of one module at equal budget
TITLES = {
    "linear": "the classifier alone",
    "full": "all weights",
    "adapter": "adapter at equal budget",
    "lora": "LoRA at equal budget",
    "vpt": "VPT at equal budget",
    "max": "the largest feasible design",
    "middle": "the middle design",
    "feasible": "a random feasible design",
    "alone": "the best of designs trained alone",
    "random": "random search",
    "noah": "NOAH (evolution)",
}
ALONE_EPOCHS = 10  # of a candidate that is trained alone
TRIED = 3  # designs of several modules that show a learning rate
MOST = 512  # dims that are tried for a single module
WORK = 9_000  # dims over all blocks, which a space allows


def row_of(name: str) -> Row:
    """A row by name: one of KINDS, or one of them with another recipe, `noah@LABEL`.

    Raises:
        NoahnasError: if there is no such row.
    """
    base, at, label = name.partition("@")
    if base not in KINDS or (at and not label):
        raise NoahnasError(unknown("row", name, KINDS) + "; NAME@RECIPE follows another recipe")
    return Row(name, KINDS[base], recipe=label)


def title_of(name: str) -> str:
    """What a row is, for readers."""
    base, _, label = name.partition("@")
    return TITLES[base] + (f" @ {label}" if label else "")


def mixed(row: Row) -> bool:
    """Whether it trains an architecture of several modules."""
    return row.kind in ("max", "middle", "feasible", "alone", "random", "noah")


def rated(row: Row) -> str:
    """The kind under which a recipe lists its learning rates."""
    return MIXED if mixed(row) else row.kind


@lru_cache(maxsize=1024)  # a table asks for each several times, and counting takes a second
def design(row: Row, space: Space, task: str, seed: int) -> Arch:
    """The architecture of a row that is not searched.

    - `max` and `middle`: the strategies of that name.
    - `feasible`: one draw of the paper prior that meets the budget; another for each task and seed.
    - a single module: the widest dim, the same in all blocks, that meets the budget; it need be
      none of the space's dims, so that no module is held back by their grid.

    Args:
        row: which.
        space: bound to backbone and classes.
        task: name of the task.
        seed: of the cell.

    Raises:
        NoahnasError: if nothing meets the budget.
    """
    if row.kind in ("max", "middle"):
        return make_strategy(row.kind, space, seed).ask(1)[0].arch
    if row.kind == "feasible":
        rng = np.random.default_rng([seed, zlib.crc32(f"feasible {task}".encode())])
        return space.sample(rng, prior="paper")[0]
    if row.kind in MODULES:
        return widest(MODULES[row.kind], space)
    return Arch()


@lru_cache(maxsize=1024)
def tried(row: Row, space: Space, task: str, seed: int) -> tuple[Arch, ...]:
    """The designs that show which learning rate suits a row.

    One of a single module shows its own. For those of several modules these are random feasible
    designs, which are in no row: at a rate that suits one of them another may diverge.

    Raises:
        NoahnasError: if nothing meets the budget.
    """
    if not mixed(row):
        return (design(row, space, task, seed),)
    rng = np.random.default_rng([seed, zlib.crc32(f"rates {task}".encode())])
    return tuple(space.sample(rng, TRIED, prior="paper"))


@lru_cache(maxsize=1024)
def candidates(space: Space, task: str, seed: int, count: int) -> tuple[Arch, ...]:
    """Random feasible designs of which the row `alone` takes the best.

    Raises:
        NoahnasError: if nothing meets the budget.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"alone {task}".encode())])
    return tuple(space.sample(rng, count, prior="paper"))


@lru_cache(maxsize=32)
def widest(module: str, space: Space) -> Arch:
    """The widest uniform arch of one module within a space's budget.

    Raises:
        NoahnasError: if not even a dim of 1 meets it.
    """
    dims = tuple(range(1, min(MOST, WORK // space.blocks) + 1))
    alone = replace(space, modules={module: ModuleSpace(dim=dims)}, rules=(), places={})
    return make_strategy("single", alone, 0).ask(1)[0].arch
