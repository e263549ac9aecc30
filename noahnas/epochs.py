"""How many epochs a winner is retrained for, where a recipe has that found out on val.

For each number that `Recipe.retrain_epochs` lists, the winner is trained on train and scored on
val; each such trial is a stage of the run (`noahnas.stages`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noahnas.recipe import Recipe

EPOCHS = "epochs"  # what the trials are called together


def name_of(epochs: int) -> str:
    """The name of the stage that tries so many epochs."""
    return f"{EPOCHS}-{epochs}"


def tried(recipe: Recipe, done: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """What each number that a recipe lists scored on val; {} until all are tried.

    Args:
        recipe: a run's.
        done: what the run's finished stages measured, by name.
    """
    names = {epochs: name_of(epochs) for epochs in recipe.retrain_epochs}
    if not all(name in done for name in names.values()):
        return {}
    return {epochs: done[name]["result"] for epochs, name in names.items()}


def best(vals: Mapping[int, Mapping[str, Any]]) -> int:
    """The number of best accuracy on val; of equals that of the lower loss, then the lower."""
    return max(vals, key=lambda n: (vals[n]["accuracy"], -vals[n]["loss"], -n))


def as_taken(recipe: Recipe, done: Mapping[str, Any]) -> Recipe:
    """The recipe with the number that a run takes; as it is until all are tried."""
    vals = tried(recipe, done)
    return recipe.retrained_for(best(vals)) if vals else recipe
