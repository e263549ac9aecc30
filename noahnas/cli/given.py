"""What options give as text, as the library takes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noahnas.cli.screen import BadParameter

if TYPE_CHECKING:
    from noahnas.recipe import Recipe
    from noahnas.space import Space


def with_changes(
    recipe: Recipe,
    trials: int | None = None,
    supernet_epochs: int | None = None,
    retrain_epochs: int | None = None,
    policy: str | None = None,
) -> Recipe:
    """A recipe with what options change of it; its name says that it is changed."""
    from dataclasses import replace

    from noahnas.policy import policy_fault

    if trials or supernet_epochs or retrain_epochs or policy:
        recipe = recipe.changed
    if trials:
        recipe = replace(recipe, trials=trials)
    if supernet_epochs:
        recipe = replace(recipe, supernet=recipe.supernet.of_epochs(supernet_epochs))
    if retrain_epochs:
        recipe = recipe.retrained_for(retrain_epochs)
    if policy:
        fault = policy_fault(policy)
        if fault:
            raise BadParameter(fault, param_hint="--policy")
        recipe = replace(recipe, policy=policy)
    return recipe


def recipe_of(name: str | None, data: str) -> Recipe:
    """A recipe by name or path; without one, that of the data."""
    from noahnas.cli.options import DEFAULT_RECIPE
    from noahnas.recipe import Recipe

    return Recipe.load(name or DEFAULT_RECIPE.get(data, "default"))


def space_of(name: str, budget: str | None) -> Space:
    """A space by name or path, under the budget of an option if that is given."""
    from noahnas.space import Space
    from noahnas.space.budget import params_amount

    space = Space.load(name)
    if not budget:
        return space
    try:
        return space.with_budget(params_amount(budget))
    except ValueError as e:
        raise BadParameter(str(e), param_hint="--budget") from None


def options_of(given: list[str]) -> dict[str, str]:
    """`--set name=value` as a mapping."""
    options = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise BadParameter(f"'{item}' is not NAME=VALUE", param_hint="--set")
        options[name] = value
    return options


def data_of(spec: str) -> str:
    """A directory as an absolute path, so that a run can be resumed from anywhere."""
    from noahnas.data import domains, fewshot
    from noahnas.data.dataset import READERS
    from noahnas.data.lists import options_in
    from noahnas.registry import installed

    name, _, argument = spec.partition(":")
    if name in ("folder", "csv", "npz", "vtab") and argument:
        return f"{name}:{Path(argument).resolve()}"
    if name == "domains" and argument:
        place, _ = options_in(argument, domains.KEYS)
        return f"{name}:{Path(place).resolve()}{argument.removeprefix(place)}"
    if name == "few-shot" and argument:
        place, _ = options_in(argument, fewshot.KEYS)
        lists = (Path(place) / "annotations").is_dir()
        whole = str(Path(place).resolve()) if lists else data_of(place)
        return f"{name}:{whole}{argument.removeprefix(place)}"
    if Path(spec).exists() and name not in installed("noahnas.data"):
        return str(Path(spec).resolve())
    if name.partition("/")[0] in READERS:
        return _reader_of(name, argument)
    return spec


def _reader_of(name: str, root: str) -> str:
    """One of timm's readers, its root and a data set of the hub's kind on this disk absolute."""
    reader, _, place = name.partition("/")
    if reader == "hfds" and place and Path(place).exists():
        name = f"{reader}/{Path(place).resolve()}"
    if not root:
        return name
    elsewhere = "://" in root or root.startswith("pipe:")  # webdataset reads those as they are
    return f"{name}:{root if elsewhere else Path(root).resolve()}"


def file_of(spec: str) -> str:
    """A weights file, alone or in NAME@FILE, by its absolute path."""
    name, at, path = ("", "", spec) if Path(spec).is_file() else spec.rpartition("@")
    return f"{name}{at}{Path(path).resolve()}" if Path(path).is_file() else spec
