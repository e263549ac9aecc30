"""micro-VTAB: which runs its table stands for.

For each task: learning rates tried on val with the first seed; a supernet for each seed, or for the
first alone, which all searches of that seed share; then a run for each row and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from noahnas.backbone import load_backbone
from noahnas.data.micro_vtab import GROUPS, TASKS
from noahnas.errors import NoahnasError, unknown
from noahnas.inputs import Inputs
from noahnas.protocols.cells import Cell, Settings, at_rate
from noahnas.protocols.designs import (
    ALONE_EPOCHS,
    KINDS,
    candidates,
    design,
    mixed,
    rated,
    row_of,
    tried,
)
from noahnas.protocols.prices import passes
from noahnas.protocols.rows import Row
from noahnas.recipe import MIXED, Protocol, Recipe
from noahnas.space import Space

NAME = "micro-vtab"


@dataclass(frozen=True, order=True)
class Figure:
    """One figure of the table that was asked for."""

    task: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its cell."""
        return f"{self.task}/{self.row}/seed-{self.seed}"


@dataclass(frozen=True)
class Asked:
    """All figures that were asked for in one place, and the recipes that rows name."""

    settings: Settings
    figures: tuple[Figure, ...]
    recipes: Mapping[str, Recipe]  # by the label that follows the @ of a row

    def recipe(self, row: Row) -> Recipe:
        """What a row follows."""
        return self.recipes[row.recipe] if row.recipe else self.settings.recipe

    def plan(self) -> list[Cell]:
        """The cells of the figures and of what they need, in order."""
        spaces: dict[str, Space] = {}
        cells: dict[str, Cell] = {}
        for figure in self.figures:
            if figure.task not in spaces:
                spaces[figure.task] = bound(self.settings, figure.task)
            for cell in _cells(self, figure, spaces[figure.task]):
                cells.setdefault(cell.name, cell)
        return list(cells.values())


def bound(settings: Settings, task: str) -> Space:
    """The space on the backbone; with the task's classes where the budget counts the classifier.

    Otherwise all tasks have the same space, and what is found out about it serves all.
    """
    model: Any = load_backbone(settings.backbone).model
    budget = settings.space.budget
    classes = len(TASKS[task].classes) if budget and budget.head else None
    return settings.space.bind(model, classes=classes)


def tasks_of(words: Sequence[str]) -> list[str]:
    """Tasks from names of tasks and of groups, in the table's order.

    Raises:
        NoahnasError: if there is no such task or group.
    """
    wanted = set()
    for word in words:
        found = [name for name, task in TASKS.items() if word in (name, task.group)]
        if not found:
            raise NoahnasError(unknown("task", word, [*TASKS, *GROUPS]))
        wanted.update(found)
    return [name for name in TASKS if name in wanted]


def rows_of(names: Sequence[str]) -> tuple[list[str], dict[str, Recipe]]:
    """Rows by name; what follows an @ is a recipe, and becomes the label that it has as its name.

    Raises:
        NoahnasError: if there is no such row or recipe, or two recipes have one name.
    """
    rows, recipes, shipped = [], dict[str, Recipe](), set[str]()
    for name in names:
        base, at, wanted = name.partition("@")
        label = ""
        if at:
            recipe = Recipe.load(wanted)
            label = _label(recipe)
            if recipes.setdefault(label, recipe) != recipe:
                raise NoahnasError(f"two recipes are called {label}; rename one ({wanted})")
            if recipe.protocol and recipe.protocol.rates_from:
                shipped.add(recipe.protocol.rates_from)
        row_of(f"{base}{at}{label}")
        rows.append(f"{base}{at}{label}")
    for name in shipped & set(recipes):
        if recipes[name] != Recipe.load(name):
            raise NoahnasError(f"a shipped recipe is called {name}, too; rename yours")
    return rows, recipes


def _label(recipe: Recipe) -> str:
    """A recipe's name, as paths and rows hold it."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in recipe.name)


def order(figure: Figure) -> tuple[int, int, str, int]:
    """Tasks in the table's order, rows in theirs, other recipes after the table's own."""
    base, _, label = figure.row.partition("@")
    return list(TASKS).index(figure.task), list(KINDS).index(base), label, figure.seed


# --- cells -----------------------------------------------------------------------------------


def _cells(asked: Asked, figure: Figure, space: Space) -> list[Cell]:
    """The cells of a figure: first those that it needs."""
    row = row_of(figure.row)
    settings, recipe = asked.settings, asked.recipe(row)
    protocol = recipe.protocol
    kind = rated(row)
    stage = recipe.retrain if mixed(row) else None
    if stage is None:
        if not protocol or kind not in protocol.rows:
            raise NoahnasError(
                f"the recipe '{recipe.name}' has no protocol.rows.{kind}, which the row "
                f"'{row.name}' needs"
            )
        stage = protocol.rows[kind]
    inputs = Inputs(
        data=f"{NAME}:{figure.task}",
        backbone=settings.backbone,
        recipe=replace(
            recipe,
            retrain=stage,
            retrain_epochs=recipe.retrain_epochs if mixed(row) else (),
            protocol=None,
        ),
        seed=figure.seed,
        on_error=settings.on_error,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        full=row.kind == "full",
        probe=False,
    )
    needed = _tried(figure, row, inputs, space, recipe, settings)
    rates = tuple((cell.name, cell.inputs.recipe.retrain.lr) for cell in needed)
    if row.kind == "alone":
        needed += _candidates(figure, row, inputs, space, rates)
        names = tuple(cell.name for cell in needed[len(rates) :])
        cell = Cell(figure.task, row, figure.seed, inputs, rates=rates, candidates=names)
        return [*needed, cell]
    if not row.searched:
        inputs = replace(inputs, arch=design(row, space, figure.task, figure.seed))
        return [*needed, Cell(figure.task, row, figure.seed, inputs, rates=rates)]
    first = settings.protocol.seeds[0]
    if protocol and protocol.winner == "first-seed" and figure.seed != first:
        needed = _cells(asked, replace(figure, seed=first), space)
        winner = needed[-1].name
        cell = Cell(figure.task, row, figure.seed, inputs, winner_of=winner, rates=rates)
        return [*needed, cell]
    supernet = Row(f"supernet{_suffix(row)}", "supernet")
    # Retraining is not the supernet's concern: another learning rate there leaves it as it is.
    alone = replace(inputs, space=settings.space)
    needed.append(Cell(figure.task, supernet, figure.seed, alone))
    search = recipe.search if row.kind == "noah" else replace(recipe.search, strategy="random")
    options = dict(search.options) if row.kind == "noah" else {}
    inputs = replace(inputs, space=settings.space, strategy=search.strategy, options=options)
    name = needed[-1].name
    return [
        *needed,
        Cell(figure.task, row, figure.seed, inputs, supernet_of=name, rates=rates),
    ]


def _tried(
    figure: Figure, row: Row, inputs: Inputs, space: Space, recipe: Recipe, settings: Settings
) -> list[Cell]:
    """Cells for each learning rate tried: the first seed, trained on train, scored on val.

    Raises:
        NoahnasError: if they are to be another recipe's, which has none or retrains otherwise.
    """
    suffix = _suffix(row)
    if mixed(row) and recipe.protocol and recipe.protocol.rates_from:
        recipe = _like(recipe, recipe.protocol)
        suffix = "" if recipe == settings.recipe else f"@{_label(recipe)}"
        inputs = replace(inputs, recipe=replace(recipe, protocol=None))
    rates = recipe.protocol.rates.get(rated(row), ()) if recipe.protocol else ()
    label = f"rates/{rated(row)}{suffix}"
    kind = "feasible" if mixed(row) else row.kind
    seed = settings.protocol.seeds[0]
    archs = tried(row, space, figure.task, seed) if rates else ()
    return [
        Cell(
            figure.task,
            Row(label, kind),
            seed,
            replace(
                inputs, recipe=at_rate(inputs.recipe, rate), seed=seed, arch=arch, held_out=True
            ),
            place=f"{figure.task}/{label}/lr-{rate:g}" + (f"/{i}" if len(archs) > 1 else ""),
        )
        for rate in rates
        for i, arch in enumerate(archs)
    ]


def _like(recipe: Recipe, protocol: Protocol) -> Recipe:
    """The recipe whose trials settle this one's rate: it must retrain alike, but for the rate."""
    other = Recipe.load(protocol.rates_from)
    fault = ""
    if protocol.rates.get(MIXED):
        fault = f"and has protocol.rates.{MIXED}, too; leave one of them out"
    elif not (other.protocol and other.protocol.rates.get(MIXED)):
        fault = f"which has no protocol.rates.{MIXED}; name a recipe that has"
    elif _retraining(at_rate(other, recipe.retrain.lr)) != _retraining(recipe):
        fault = "which retrains in another way; make all keys that begin with retrain the same"
    if fault:
        raise NoahnasError(
            f"the recipe '{recipe.name}' takes its learning rates from '{other.name}' "
            f"(protocol.rates_from), {fault}"
        )
    return other


def _retraining(recipe: Recipe) -> tuple[Any, ...]:
    return recipe.retrain, recipe.retrain_on, recipe.retrain_from, recipe.retrain_epochs


def _candidates(
    figure: Figure,
    row: Row,
    inputs: Inputs,
    space: Space,
    rates: tuple[tuple[str, float], ...],
) -> list[Cell]:
    """Designs that are trained alone on train for a few epochs and scored on val.

    As many as can be had for the passes that the recipe spends on supernet and search, at least
    two.
    """
    recipe = inputs.recipe
    stage = replace(recipe.retrain, epochs=min(ALONE_EPOCHS, recipe.retrain.epochs))
    short = replace(inputs, recipe=replace(recipe, retrain=stage), held_out=True)
    searched = replace(inputs, space=space)
    train = passes(Cell(figure.task, row, figure.seed, searched))["supernet"]
    search = passes(Cell(figure.task, row, figure.seed, searched, supernet_of="it"))["search"]
    each = passes(Cell(figure.task, row, figure.seed, short))["retrain"] + _val(figure)
    count = max(2, (train + search) // each)
    return [
        Cell(
            figure.task,
            row,
            figure.seed,
            replace(short, arch=arch),
            rates=rates,
            place=f"{figure.task}/candidates{_suffix(row)}/seed-{figure.seed}/{i}",
        )
        for i, arch in enumerate(candidates(space, figure.task, figure.seed, count))
    ]


def _val(figure: Figure) -> int:
    return TASKS[figure.task].counts[1]


def _suffix(row: Row) -> str:
    return f"@{row.recipe}" if row.recipe else ""
