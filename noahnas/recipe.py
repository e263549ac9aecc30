"""Recipes: the hyper-parameters of a run, one visible YAML file each (`noahnas/recipes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from noahnas.errors import Fault, RecipeError, unknown
from noahnas.policy import POLICIES
from noahnas.space.document import Checker, Node, parse, read


@dataclass(frozen=True)
class Stage:
    """How one stage is trained: AdamW, cosine decay after a linear warm-up."""

    epochs: int
    lr: float  # peak learning rate
    batch_size: int  # images
    weight_decay: float = 1e-4
    warmup_epochs: int = 0
    drop_path: float = 0.0  # stochastic-depth rate of the last block
    dropout: float = 0.0  # inside prompt modules

    def of_epochs(self, epochs: int) -> Stage:
        """The same stage in another number of epochs; its warm-up is a quarter of them at most."""
        return replace(self, epochs=epochs, warmup_epochs=min(self.warmup_epochs, epochs // 4))


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of supernet training, search and retraining."""

    name: str
    description: str
    supernet: Stage
    policy: str  # which arch a training step of the supernet takes
    trials: int  # architectures evaluated in a search
    batch: int  # architectures asked for at a time
    retrain: Stage

    @classmethod
    def load(cls, name_or_path: str) -> Recipe:
        """A shipped recipe by name, or a file by path (a slash or a `.yaml` ending).

        Raises:
            RecipeError: with every fault's line and column.
        """
        if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
            return parse_recipe(read(Path(name_or_path), RecipeError), name_or_path)
        folder = files("noahnas").joinpath("recipes")
        known = [f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")]
        if name_or_path not in known:
            raise RecipeError(name_or_path, [Fault(0, 0, unknown("recipe", name_or_path, known))])
        source = f"{name_or_path}.yaml"
        return parse_recipe(folder.joinpath(source).read_text(encoding="utf-8"), source)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`."""
        given: dict[str, Any] = {
            key: Stage(**value) if isinstance(value, Mapping) else value
            for key, value in values.items()
        }
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)


def parse_recipe(text: str, source: str) -> Recipe:
    """A Recipe from the text of a recipe file.

    Raises:
        RecipeError: with every fault's line and column.
    """
    root = parse(text, source, RecipeError)
    check = Checker()
    known = [f.name for f in fields(Recipe)]
    top = check.mapping(root, "a recipe", known)
    for key in known:
        if key not in top and isinstance(root.value, dict):
            check.fault(root, f"'{key}' is missing")
    values: dict[str, Any] = {}
    for key, node in top.items():
        if key in ("trials", "batch"):
            values[key] = check.integer(node, key, minimum=1)
        elif key in ("name", "description", "policy"):
            values[key] = check.text(node, key)
            if key == "policy" and values[key] not in POLICIES:
                check.fault(node, unknown("policy", values[key], POLICIES))
        else:
            values[key] = _stage(check, node, key)
    if check.faults:
        raise RecipeError(source, check.faults)
    return Recipe(**values)


def _stage(check: Checker, node: Node, what: str) -> Stage | None:
    numbers = {f.name: f.type for f in fields(Stage)}
    keys = check.mapping(node, what, list(numbers))
    values: dict[str, Any] = {}
    for key, value in keys.items():
        where = f"{what}.{key}"
        whole = numbers[key] == "int"
        least = 0 if key == "warmup_epochs" else 1
        values[key] = check.integer(value, where, least) if whole else check.number(value, where)
    for key in ("epochs", "lr", "batch_size"):
        if key not in keys and isinstance(node.value, dict):
            check.fault(node, f"{what}: '{key}' is missing")
            return None
    for key in ("drop_path", "dropout"):
        if values.get(key, 0) >= 1:
            check.fault(keys[key], f"{what}.{key} must be below 1, not {keys[key].value}")
    if values.get("warmup_epochs", 0) >= values.get("epochs", 1):
        check.fault(node, f"{what}: warmup_epochs must be fewer than epochs")
    return None if not isinstance(node.value, dict) else Stage(**values)
