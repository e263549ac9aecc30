"""The figures that were ever asked for in a table's directory, and the recipes that rows named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from noahnas.errors import RunError
from noahnas.files import sealed_json, write_atomic
from noahnas.protocols.cells import Settings
from noahnas.protocols.micro import Asked, Figure, order
from noahnas.protocols.runs import unplaced
from noahnas.recipe import Protocol, Recipe
from noahnas.rundir import RunDirectory, reading
from noahnas.space import format_space

GRID = "grid.json"


def merged(out: Path, asked: Asked) -> Asked:
    """What is asked for now, together with what was asked for in `out` before.

    Rows of a recipe's protocol and learning rates to try may be others than before: each run is
    compared with what is planned now (`check_begun`), and the table shows that.

    Raises:
        RunError: if the runs there are of another backbone, space, budget or recipe.
    """
    if not (out / GRID).is_file():
        return asked
    told = RunDirectory(out).read_json(GRID, "base", "figures", "recipes")
    base = json.loads(json.dumps(_base(asked.settings)))
    base["recipe"] = _plain(asked.settings.recipe)
    with reading(out / GRID):
        before = told["base"] | {"recipe": _plain(Recipe.from_dict(told["base"]["recipe"]))}
        recipes = {label: Recipe.from_dict(recipe) for label, recipe in told["recipes"].items()}
        figures = [Figure(**figure) for figure in told["figures"]]
    differ = [key for key in base if before.get(key) != base[key]]
    differ += [
        f"the recipe {label}"
        for label, recipe in asked.recipes.items()
        if label in recipes and _plain(recipes[label]) != _plain(recipe)
    ]
    if differ:
        raise RunError(
            f"{out} was begun with other inputs ({', '.join(differ)}); choose another --out"
        )
    both = sorted({*figures, *asked.figures}, key=order)
    return replace(asked, figures=tuple(both), recipes=recipes | dict(asked.recipes))


def remember(out: Path, asked: Asked) -> None:
    """Write what has been asked for, so that a later table can tell what is missing.

    Two processes must not do so at a time.
    """
    told = {
        "base": _base(asked.settings),
        "recipes": {label: recipe.to_dict() for label, recipe in asked.recipes.items()},
        "figures": [vars(figure) for figure in asked.figures],
    }
    content = sealed_json(told)
    if not (out / GRID).is_file() or (out / GRID).read_bytes() != content:
        write_atomic(out / GRID, content)


def _base(settings: Settings) -> dict[str, Any]:
    """What all runs of a table share."""
    return {
        "backbone": unplaced(settings.backbone),
        "space": format_space(settings.space),
        "recipe": settings.recipe.to_dict(),
        "on_error": settings.on_error,
    }


def _plain(recipe: Recipe) -> Any:
    """What a recipe must have in common with the one of the same name that runs are of.

    Rows may be added to its protocol, and learning rates to try: a run's own inputs are compared.
    """
    protocol = recipe.protocol
    told = replace(recipe, protocol=None).to_dict()
    if protocol and (protocol.winner, protocol.rates_from) != (Protocol.winner, ""):
        told |= {"winner": protocol.winner, "rates_from": protocol.rates_from}
    return json.loads(json.dumps(told))
