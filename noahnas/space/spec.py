"""Spec: what a space declares, and the backbone that it is bound to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from noahnas.errors import Fault, SpaceError
from noahnas.space.arch import Arch
from noahnas.space.budget import Amount, Budget
from noahnas.space.compile import compile_part
from noahnas.space.declaration import ModuleSpace
from noahnas.space.declared import Told, declared_faults
from noahnas.space.document import Place
from noahnas.space.genes import Part
from noahnas.space.measures import measures
from noahnas.space.mistyped import mistyped
from noahnas.space.rules import Rule, bound_rule, parse_rule
from noahnas.space.schema import Shape

MAX_IN_ALL = 10_000  # values, of each attribute in each block


@dataclass(frozen=True, eq=False)
class Spec:
    """Modules, a budget and rules, over the blocks of one backbone."""

    name: str
    modules: Mapping[str, ModuleSpace]
    description: str = ""
    budget: Budget | None = None
    rules: Sequence[Rule | str] = ()
    blocks: int = field(default=12, kw_only=True)
    width: int = field(default=768, kw_only=True)  # token width D
    hidden: int = field(default=0, kw_only=True)  # of a block's MLP; 0 = 4·D
    tokens: int = field(default=197, kw_only=True)  # patches, class and register tokens
    gated: bool = field(default=False, kw_only=True)  # whether the MLP computes gates, too
    classes: int | None = field(default=None, kw_only=True)  # for a budget that counts the head
    weights: int = field(default=0, kw_only=True)  # of the backbone, head apart; 0 = by its shape
    latency: Callable[[Arch], float] | None = field(default=None, kw_only=True)  # ms per image
    source: str = field(default="", kw_only=True)  # file that declares it, for faults
    places: Mapping[str, Place] = field(default_factory=dict, kw_only=True)  # of what it declares

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        self._refuse([self._fault(key, message) for key, message in mistyped(self)])
        object.__setattr__(self, "modules", dict(sorted(self.modules.items())))
        rules: list[Rule] = []
        for i, rule in enumerate(self.rules):
            try:
                rules.append(parse_rule(rule) if isinstance(rule, str) else rule)
            except ValueError as e:
                faults.append(self._fault(f"rules.{i}", str(e)))
        object.__setattr__(self, "rules", tuple(rules))
        declared_faults(self.modules, rules, self._told(faults))
        self._refuse(faults)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        declared = json.dumps(self.to_dict(), sort_keys=True)
        return (declared, self.shape, self.classes, self.weights)

    @property
    def shape(self) -> Shape:
        """What of the backbone decides prices."""
        return Shape(self.blocks, self.width, self.hidden, self.tokens, self.gated)

    # --- faults ------------------------------------------------------------------------------

    def _fault(self, key: str, message: str) -> Fault:
        """A fault at the place where the space's file declares `key`, or at what holds it."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        line, column, source = self.places.get(key, (0, 0, ""))
        return Fault(line, column, message, source)

    def _told(self, faults: list[Fault]) -> Told:
        return lambda key, message: faults.append(self._fault(key, message))

    def _refuse(self, faults: Sequence[Fault]) -> None:
        if faults:
            raise SpaceError(self.source or f"space '{self.name}'", faults)

    def refused(self, key: str, message: str) -> SpaceError:
        """The error of one fault in what the space declares as `key`."""
        return SpaceError(self.source or f"space '{self.name}'", [self._fault(key, message)])

    # --- binding ------------------------------------------------------------------------------

    def bind(
        self,
        backbone: Any = None,
        *,
        blocks: int | None = None,
        width: int | None = None,
        hidden: int | None = None,
        tokens: int | None = None,
        classes: int | None = None,
    ) -> Self:
        """The same space over another backbone: a timm model, or its number of blocks, width, ….

        Args:
            backbone: a timm vision transformer.
            blocks: number of its blocks.
            width: token width D.
            hidden: units of a block's MLP; 4·D unless told.
            tokens: per image: patches, class and register tokens.
            classes: outputs of the classifier, for a budget that counts the head.

        Raises:
            SpaceError: with every fault, if it does not fit: a depth beyond the backbone, a
                fraction that is not a whole number of blocks, selectors that overlap or are empty.
        """
        given: dict[str, Any] = {
            "blocks": blocks,
            "width": width,
            "hidden": hidden,
            "tokens": tokens,
            "classes": classes,
        }
        if width is not None:
            given["hidden"] = hidden or 0
        given = {key: value for key, value in given.items() if value is not None}
        if backbone is not None:
            given = measures(backbone) | given
        elif given.keys() - {"classes"}:
            given["weights"] = 0
        bound = replace(self, **given)
        faults: list[Fault] = []
        bound._compile(bound._told(faults))
        self._refuse(faults)
        return bound

    def with_budget(self, budget: Budget | Amount | int | str) -> Self:
        """The same space under another budget.

        An amount (`0.64M`) replaces the most parameters alone, whatever else the budget limits.
        """
        if not isinstance(budget, Budget):
            budget = replace(self.budget or Budget(), params=budget)
        return replace(self, budget=budget)

    def timed(self, latency: Callable[[Arch], float]) -> Self:
        """The same space, its budget on latency applied by measuring: milliseconds per image.

        `latency(Arch())` is that of the frozen backbone. Each arch is measured once.
        """
        return replace(self, latency=latency)

    def to_dict(self) -> dict[str, Any]:
        """The declaration as a space file holds it; name and description included."""
        found: dict[str, Any] = {"name": self.name, "description": self.description}
        found["modules"] = {name: part.to_dict() for name, part in self.modules.items()}
        if self.budget and self.budget.to_dict():
            found["budget"] = self.budget.to_dict()
        if self.rules:
            found["rules"] = [str(rule) for rule in self.rules]
        return found

    def _compile(self, told: Told) -> tuple[dict[str, Part], tuple[Rule, ...]]:
        parts = {
            name: compile_part(name, declared, self.blocks, told)
            for name, declared in self.modules.items()
        }
        genes = [gene for part in parts.values() if part for gene in part.genes]
        values = sum(len(gene.choices) * max(len(gene.blocks), 1) for gene in genes)
        if values > MAX_IN_ALL:
            told(
                "modules",
                f"the space offers {values} values over its blocks, more than {MAX_IN_ALL}: offer "
                "fewer values, such as a range with a larger step",
            )
        rules: list[Rule] = []
        for i, rule in enumerate(self.rules):
            try:
                rules.append(bound_rule(rule, self.blocks))  # type: ignore[arg-type]  # parsed
            except ValueError as e:
                told(f"rules.{i}", f"rule '{rule}': {e}")
        return {name: part for name, part in parts.items() if part}, tuple(rules)

    @cached_property
    def _compiled(self) -> tuple[dict[str, Part], tuple[Rule, ...]]:
        faults: list[Fault] = []
        compiled = self._compile(self._told(faults))
        self._refuse(faults)
        return compiled

    @property
    def parts(self) -> dict[str, Part]:
        """The modules compiled to genes over this backbone.

        Raises:
            SpaceError: if the declaration does not fit the backbone.
        """
        return self._compiled[0]

    @property
    def bound_rules(self) -> tuple[Rule, ...]:
        """The rules, with depths as numbers of this backbone's blocks."""
        return self._compiled[1]
