"""Cells of a protocol's table: which runs they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from noahnas.backbone import load_backbone
from noahnas.errors import RunError
from noahnas.inputs import Inputs
from noahnas.protocols.rows import Row
from noahnas.recipe import Protocol, Recipe
from noahnas.space import Arch, Space

Results = Mapping[str, Mapping[str, Any]]  # by cell name


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
    precision: str = "fp32"
    threads: int | None = None


@dataclass(frozen=True)
class Cell:
    """One run: a row trained on a task with a seed."""

    task: str
    row: Row
    seed: int
    inputs: Inputs
    winner_of: str = ""  # the cell whose winner this one retrains
    supernet_of: str = ""  # the cell whose supernet this one searches
    rates: tuple[tuple[str, float], ...] = ()  # cells that tried learning rates; the best is taken
    candidates: tuple[str, ...] = ()  # cells that trained an arch each; the best on val is taken
    place: str = ""  # where it stands, if not by task, row and seed

    @property
    def name(self) -> str:
        """Where it stands below the table's directory."""
        return self.place or f"{self.task}/{self.row.name}/seed-{self.seed}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Cells whose results decide its inputs."""
        tried = (name for name, _ in self.rates)
        return tuple(name for name in (self.winner_of, *tried, *self.candidates) if name)

    @property
    def left_open(self) -> set[str]:
        """The inputs that those results decide."""
        arch = {"arch"} if self.winner_of or self.candidates else set()
        return arch | ({"recipe"} if self.rates else set())

    def settled(self, out: Path, results: Results) -> Inputs:
        """Its inputs, now that the cells it needs are done.

        Raises:
            RunError: if no learning rate could be trained with, or no candidate.
        """
        inputs = self.inputs
        if self.candidates:
            inputs = replace(inputs, arch=best_arch(self.candidates, results))
        if self.winner_of:
            inputs = replace(inputs, arch=Arch.from_dict(results[self.winner_of]["arch"]))
        if self.supernet_of:
            inputs = replace(inputs, supernet=str(out / self.supernet_of))
        if self.rates:
            inputs = replace(inputs, recipe=at_rate(inputs.recipe, best_rate(self.rates, results)))
        return inputs


def at_rate(recipe: Recipe, rate: float) -> Recipe:
    """The recipe with another learning rate of retraining, on a backbone of any width."""
    return replace(recipe, retrain=replace(recipe.retrain, lr=rate, lr_width=0))


def best_rate(rates: Sequence[tuple[str, float]], results: Results) -> float:
    """The rate of best mean val accuracy; of equals that of the lower loss, then the lower rate.

    A rate at which not every run came to its end is none.

    Raises:
        RunError: if there is no other.
    """
    scores = {}
    for rate in dict.fromkeys(rate for _, rate in rates):
        vals = [results[name].get("val") for name, of in rates if of == rate]
        if all(vals):
            means = (fmean(val[key] for val in vals if val) for key in ("accuracy", "loss"))
            accuracy, loss = means
            scores[rate] = (accuracy, -loss, -rate)
    if not scores:
        told = "; ".join(str(results[name].get("failed")) for name, _ in rates)
        raise RunError(f"training diverged with every learning rate tried: {told}")
    return max(scores, key=lambda rate: scores[rate])


def best_arch(candidates: Sequence[str], results: Results) -> Arch:
    """The arch of best val accuracy, of equals that of the lower loss.

    Raises:
        RunError: if none was trained to its end.
    """
    vals = {name: results[name]["val"] for name in candidates if "val" in results[name]}
    if not vals:
        told = "; ".join(str(results[name].get("failed")) for name in candidates)
        raise RunError(f"training diverged with every candidate: {told}")
    best = max(vals, key=lambda name: (vals[name]["accuracy"], -vals[name]["loss"]))
    return Arch.from_dict(results[best]["arch"])


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
    precision: str = "fp32",
    threads: int | None = None,
) -> Settings:
    """Check what does not depend on data: backbone, space and budget.

    Raises:
        NoahnasError: of the kind of what is wrong.
    """
    protocol = protocol_of(recipe, name)
    model: Any = load_backbone(backbone).model
    settings = Settings(
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
    check_budget(settings)
    return settings


def check_budget(settings: Settings, classes: int | None = None) -> None:
    """Check that something meets the budget, if a row is searched.

    Args:
        settings: what all cells share.
        classes: of a task, if it is known; only with it a budget that counts the head can be
            checked, and another one only without it, as it is the same for all tasks.

    Raises:
        SpaceError: if nothing does.
    """
    budget = settings.space.budget
    counts_head = bool(budget and budget.head)
    if any(row.searched for row in settings.rows) and counts_head == (classes is not None):
        model: Any = load_backbone(settings.backbone).model
        settings.space.bind(model, classes=classes).check_budget()


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
        baseline = None if row.searched else protocol.rows[row.kind]
        trained = replace(recipe, retrain=baseline, retrain_epochs=()) if baseline else recipe
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
