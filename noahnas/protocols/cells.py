"""Cells of a protocol's table: which runs they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from noahnas.backbone import load_backbone
from noahnas.errors import RunError
from noahnas.inputs import Inputs
from noahnas.protocols.rows import Row
from noahnas.recipe import Protocol, Recipe
from noahnas.space import Space


@dataclass(frozen=True)
class Settings:
    """What all cells of a table share."""

    recipe: Recipe
    protocol: Protocol  # the recipe's
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    backbone: str
    blocks: int  # of the backbone
    space: Space
    paper: bool = False  # test every few epochs, and report the best one as well
    on_error: str = "stop"  # at an unreadable image: stop or skip
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Cell:
    """One run: a row trained on a task with a seed."""

    task: str
    row: Row
    seed: int
    inputs: Inputs
    winner_of: str = ""  # the cell whose winner this one retrains

    @property
    def name(self) -> str:
        """Where it stands below the table's directory."""
        return f"{self.task}/{self.row.name}/seed-{self.seed}"


def settle(
    recipe: Recipe,
    name: str,
    rows: Sequence[Row],
    seeds: Sequence[int],
    *,
    backbone: str,
    space: Space,
    paper: bool = False,
    on_error: str = "stop",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Settings:
    """Check what does not depend on data: backbone, space and budget.

    Raises:
        NoahnasError: of the kind of what is wrong.
    """
    protocol = protocol_of(recipe, name)
    model: Any = load_backbone(backbone).model
    if any(row.searched for row in rows):
        space.bind(model).check_budget()
    return Settings(
        recipe,
        protocol,
        tuple(rows),
        tuple(seeds),
        backbone,
        len(model.blocks),
        space,
        paper,
        on_error,
        device,
        precision,
        threads,
    )


def protocol_of(recipe: Recipe, name: str) -> Protocol:
    """The recipe's protocol.

    Raises:
        RunError: if it is not `name`.
    """
    if not recipe.protocol or recipe.protocol.name != name:
        raise RunError(
            f"the recipe '{recipe.name}' has no section 'protocol' with name: {name}; start from "
            f"a copy of the shipped one, noahnas/recipes/{name}.yaml"
        )
    return recipe.protocol


def cells(settings: Settings, task: str, data: Callable[[int], str]) -> Iterator[Cell]:
    """The runs of one task, row by row and seed by seed.

    Args:
        settings: what all cells share.
        task: its name, a part of paths.
        data: the data source's spec for a seed.
    """
    recipe, protocol = settings.recipe, settings.protocol
    for row in settings.rows:
        trained = recipe if row.searched else replace(recipe, retrain=protocol.rows[row.kind])
        first = ""
        for seed in settings.seeds:
            inputs = Inputs(
                data=data(seed),
                backbone=settings.backbone,
                recipe=trained,
                seed=seed,
                on_error=settings.on_error,
                device=settings.device,
                precision=settings.precision,
                threads=settings.threads,
                full=row.kind == "full",
                test_every=protocol.test_every if settings.paper else 0,
                probe=False,
            )
            if row.searched and not first:
                search = recipe.search
                inputs = replace(
                    inputs,
                    space=settings.space,
                    strategy=search.strategy,
                    options=dict(search.options),
                )
            elif not row.searched:
                inputs = replace(inputs, arch=row.arch(settings.blocks))
            cell = Cell(task, row, seed, inputs, first)
            yield cell
            if row.searched and protocol.winner == "first-seed":
                first = first or cell.name
