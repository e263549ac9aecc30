"""Recipes: the hyper-parameters of a run, one visible YAML file each (`noahnas/recipes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from noahnas.errors import Fault, RecipeError, unknown
from noahnas.normalise import MEANS
from noahnas.policy import policy_fault
from noahnas.space.document import Checker, Node, parse, read
from noahnas.typed import typed

ROWS = ("linear", "full", "vpt-deep", "adapter", "lora")  # baselines; noah is the search
MIXED = "mixed"  # architectures of several modules, searched or not
CHANGED = ", changed"  # after a recipe's name
SHARES = ("drop_path", "dropout", "smoothing", "erase")  # keys in [0, 1)
WORDS: dict[str, Sequence[str]] = {  # keys that take one of a few words
    "normalise": tuple(MEANS),
    "augment": ("none", "flip", "crop-flip"),
    "retrain_on": ("train+val", "train"),
    "retrain_from": ("backbone", "supernet"),
    "by": ("accuracy", "loss"),
    "winner": ("each-seed", "first-seed"),
}


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
    smoothing: float = 0.0  # of labels, in [0, 1)
    augment: str = "none"  # of training images: none, flip or crop-flip
    erase: float = 0.0  # probability of noise in a box of a training image
    mixup: float = 0.0  # the a of Beta(a, a); 0 = none
    cutmix: float = 0.0  # the same
    normalise: str = "backbone"  # mean and std: the backbone's own, imagenet or inception (½, ½)
    lr_width: int = 0  # of a backbone; on k times as wide ones lr / k² is taken; 0 = lr on all

    def on_width(self, width: int) -> Stage:
        """The stage with the learning rate for a backbone of this width, and no `lr_width`.

        On a backbone k times as wide as `lr_width` that is lr / k²; on a narrower one lr.
        """
        wider = max(1.0, width / self.lr_width) if self.lr_width else 1.0
        return replace(self, lr=self.lr / wider**2, lr_width=0)

    def of_epochs(self, epochs: int) -> Stage:
        """The same stage in a number of epochs; in as many as it has, the stage itself.

        Its warm-up is as long, a quarter of them at most; of more epochs it has the same share.
        """
        if epochs == self.epochs:
            return self
        warmup = -(-self.warmup_epochs * max(epochs, self.epochs) // self.epochs)  # rounded up
        return replace(self, epochs=epochs, warmup_epochs=min(warmup, epochs // 4))


@dataclass(frozen=True)
class Search:
    """How the supernet is searched."""

    strategy: str = "evolution"
    options: Mapping[str, str] = field(default_factory=dict)  # of that strategy
    normalise: str = "backbone"  # should be what the supernet was trained with
    by: str = "accuracy"  # what on val is to be best; the other one breaks ties


@dataclass(frozen=True)
class Protocol:
    """What of a paper a recipe stands for, and the rows of its table."""

    name: str  # as in `noahnas reproduce NAME`
    table: str  # of the paper, with its source
    backbone: str
    space: str
    seeds: tuple[int, ...]
    rows: Mapping[str, Stage]  # baselines, by kind, with how they are trained
    tokens: int = 50  # prompt tokens of vpt-deep in each block
    winner: str = "each-seed"  # whether each seed searches, or all retrain the first one's winner
    test_every: int = 10  # epochs, under the paper's protocol
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # tried on val, by kind
    rates_from: str = ""  # the shipped recipe whose trials settle the learning rate of mixed rows


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of supernet training, search and retraining."""

    name: str
    description: str
    supernet: Stage
    policy: str  # which archs a training step of the supernet takes (`noahnas.policy`)
    trials: int  # architectures evaluated in a search
    batch: int  # architectures asked for at a time
    retrain: Stage
    search: Search = Search()
    retrain_on: str = "train+val"  # or train alone, as few-shot learning has it
    retrain_from: str = "backbone"  # new modules; or the weights that they have in the supernet
    retrain_epochs: tuple[int, ...] = ()  # tried on val, the best are taken; () = retrain's
    protocol: Protocol | None = None

    @property
    def changed(self) -> Recipe:
        """The same recipe, whose name says that it has been changed."""
        return replace(self, name=f"{self.name.removesuffix(CHANGED)}{CHANGED}")

    def retrained_for(self, epochs: int) -> Recipe:
        """The recipe, changed to another number of epochs of retraining, and none to try."""
        stage = self.retrain.of_epochs(epochs)
        return replace(self.changed, retrain=stage, retrain_epochs=())

    @classmethod
    def load(cls, name_or_path: str) -> Recipe:
        """A shipped recipe by name, or a file by path (a slash or a `.yaml` ending).

        Raises:
            RecipeError: with every fault's line and column.
        """
        if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
            return parse_recipe(read(Path(name_or_path), RecipeError), name_or_path)
        known = _shipped()
        if name_or_path not in known:
            raise RecipeError(name_or_path, [Fault(0, 0, unknown("recipe", name_or_path, known))])
        source = f"{name_or_path}.yaml"
        text = files("noahnas").joinpath("recipes", source).read_text(encoding="utf-8")
        return parse_recipe(text, source)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`.

        Raises:
            ValueError: if a value is missing, unknown or of another kind.
        """
        recipe = typed(cls, values, "recipe")
        for number in (recipe.trials, recipe.batch):
            if number < 1:
                raise ValueError(f"recipe: trials and batch are at least 1, not {number}")
        if any(epochs < 1 for epochs in recipe.retrain_epochs) or len(recipe.retrain_epochs) == 1:
            raise ValueError(f"recipe: {recipe.retrain_epochs} are no several numbers of epochs")
        rows = recipe.protocol.rows.values() if recipe.protocol else ()
        for stage in (recipe.supernet, recipe.retrain, *rows):
            _sound(stage)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)


def _shipped() -> list[str]:
    """Names of the recipes that noahnas brings."""
    folder = files("noahnas").joinpath("recipes")
    return [f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")]


def _sound(stage: Stage) -> None:
    """Raise ValueError if no training can be done as a stage says."""
    if stage.epochs < 1 or stage.batch_size < 1 or stage.warmup_epochs not in range(stage.epochs):
        raise ValueError(f"recipe: no training has {stage.epochs} epochs, {stage.warmup_epochs} of "
                         f"them warm-up, in batches of {stage.batch_size}")  # fmt: skip
    if stage.lr_width < 0:
        raise ValueError(f"recipe: no backbone is {stage.lr_width} wide")
    for key in SHARES:
        if not 0 <= getattr(stage, key) < 1:
            raise ValueError(f"recipe: {key} must be in [0, 1), not {getattr(stage, key)}")
    for key in ("augment", "normalise"):
        if getattr(stage, key) not in WORDS[key]:
            raise ValueError(f"recipe: {unknown(key, getattr(stage, key), WORDS[key])}")


def parse_recipe(text: str, source: str) -> Recipe:
    """A Recipe from the text of a recipe file.

    Raises:
        RecipeError: with every fault's line and column.
    """
    root = parse(text, source, RecipeError)
    check = Checker()
    found = _record(check, root, Recipe, "")
    if check.faults:
        raise RecipeError(source, check.faults)
    recipe: Recipe = found
    return recipe


def _record(check: Checker, node: Node, kind: type[Any], what: str) -> Any:
    """A dataclass from a mapping: each key's reader is chosen by its name and type."""
    types = {f.name: str(f.type) for f in fields(kind)}
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    before = len(check.faults)
    keys = check.mapping(node, what or "a recipe", list(types))
    if isinstance(node.value, dict):
        for key in needed:
            if key not in keys:
                check.fault(node, f"{what}: '{key}' is missing" if what else f"'{key}' is missing")
    values = {
        key: _value(check, n, types[key], f"{what}.{key}" if what else key)
        for key, n in keys.items()
    }
    if kind is Stage and len(check.faults) == before:
        _consistent(check, node, keys, values, what)
    return kind(**values) if len(check.faults) == before else None


def _value(check: Checker, node: Node, kind: str, what: str) -> Any:
    name = what.rpartition(".")[2]
    match kind:
        case "int":
            return check.integer(node, what, 0 if name in ("warmup_epochs", "lr_width") else 1)
        case "float":
            return check.number(node, what)
        case "tuple[int, ...]":
            return _several(check, node, what) if name == "retrain_epochs" else check.integers(
                node, what)  # fmt: skip
        case "Stage":
            return _record(check, node, Stage, what)
        case "Search":
            return _record(check, node, Search, what)
        case "Protocol | None":
            return _record(check, node, Protocol, what)
        case "Mapping[str, Stage]":
            rows = check.mapping(node, what, ROWS, "row")
            return {row: _record(check, n, Stage, f"{what}.{row}") for row, n in rows.items()}
        case "Mapping[str, tuple[float, ...]]":
            rows = check.mapping(node, what, (*ROWS, MIXED), "row")
            return {row: _rates(check, n, f"{what}.{row}") for row, n in rows.items()}
        case "Mapping[str, str]":
            return {key: _plain(check, n, f"{what}.{key}") for key, n in check.mapping(
                node, what, known=None).items()}  # fmt: skip
    text = check.text(node, what)
    fault = policy_fault(text) if name == "policy" and text else None
    if fault:
        check.fault(node, fault)
    if name == "rates_from" and text and text not in _shipped():
        check.fault(node, unknown("recipe", text, _shipped()))
    if name in WORDS and text and text not in WORDS[name]:
        check.fault(node, unknown(name.replace("_", " "), text, WORDS[name]))
    return text


def _several(check: Checker, node: Node, what: str) -> tuple[int, ...]:
    found = check.integers(node, what, 1)
    if len(found) == 1:
        check.fault(node, f"{what} names one number; write it as retrain.epochs, or name several")
    return found


def _rates(check: Checker, node: Node, what: str) -> tuple[float, ...]:
    items = node.value if isinstance(node.value, list) else [node]
    if not items:
        check.fault(node, f"{what} must name at least one learning rate")
    return tuple(sorted({check.number(item, what) for item in items}))


def _plain(check: Checker, node: Node, what: str) -> str:
    if isinstance(node.value, (list, dict)) or node.value is None:
        check.fault(node, f"{what} must be a plain value")
    return str(node.value).lower() if isinstance(node.value, bool) else str(node.value)


def _consistent(
    check: Checker, node: Node, keys: Mapping[str, Node], values: Mapping[str, Any], what: str
) -> None:
    for key in SHARES:
        if values.get(key, 0) >= 1:
            check.fault(keys[key], f"{what}.{key} must be below 1, not {keys[key].value}")
    if values.get("warmup_epochs", 0) >= values.get("epochs", 1):
        check.fault(node, f"{what}: warmup_epochs must be fewer than epochs")
