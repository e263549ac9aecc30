"""Space: a declared set of architectures over the blocks of a backbone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from noahnas.errors import ArchError, Fault, SpaceError, unknown
from noahnas.space import cost, draw, nearby, repair
from noahnas.space.arch import Arch
from noahnas.space.budget import Amount, Budget, params_amount
from noahnas.space.cases import Census
from noahnas.space.declaration import ModuleSpace, schema_of
from noahnas.space.declared import Told, declared_faults
from noahnas.space.document import Place, unprintable
from noahnas.space.genes import Gene, Part, compile_part
from noahnas.space.paper import Paper
from noahnas.space.rules import Rule, bound_rule, parse_rule, terms_of
from noahnas.space.schema import Shape, Value
from noahnas.space.work import UncountableError

MAX_BLOCKS, MAX_WIDTH = 1000, 1_000_000


@dataclass(frozen=True)
class Contained:
    """Whether an arch is in a space: true, or false with the reason."""

    reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, eq=False)
class Space:
    """A set of architectures over the blocks of one backbone.

    Unbound, it answers for ViT-B/16: 12 blocks of width 768. `bind` fits it to another backbone.

    Raises:
        SpaceError: if a module is unknown, has no choices, or a rule speaks of what is not there.
    """

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
        self._refuse([self._fault(key, message) for key, message in self._mistyped()])
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

    def _mistyped(self) -> Iterator[tuple[str, str]]:
        """What is of the wrong kind, mostly what Python hands over: of which key, and why."""
        for what in ("name", "description"):
            text: Any = getattr(self, what)
            if not isinstance(text, str):
                yield what, f"{what} must be text, not {text!r}"
            elif wrong := unprintable(text, ("Cs", "Cc")):
                yield what, f"{what}: {wrong}"
        modules: Any = self.modules
        budget: Any = self.budget
        rules: Any = self.rules
        if not isinstance(modules, Mapping):
            yield "", f"modules must map names to ModuleSpace, not {self.modules!r}"
        else:
            for name, declared in modules.items():
                if not isinstance(name, str) or not isinstance(declared, ModuleSpace):
                    yield (
                        "",
                        f"{name!r} must be a name with a ModuleSpace, not {declared!r}",
                    )
        if budget is not None and not isinstance(budget, Budget):
            yield "", f"budget must be a Budget, such as Budget('0.64M'), not {self.budget!r}"
        if isinstance(rules, str) or not isinstance(rules, Sequence):
            yield "", f"rules must be a list of rules: [{self.rules!r}]"
        else:
            for rule in rules:
                if not isinstance(rule, (str, *get_args(Rule))):
                    yield "", f"a rule must be text, not {rule!r}"
        sizes = {"blocks": (1, MAX_BLOCKS), "width": (1, MAX_WIDTH), "tokens": (1, MAX_WIDTH)}
        sizes |= {"hidden": (0, MAX_WIDTH), "classes": (1, MAX_WIDTH), "weights": (0, 10**15)}
        for what, (least, most) in sizes.items():
            size = getattr(self, what)
            if what == "classes" and size is None:
                continue
            if type(size) is not int:
                yield "", f"{what} must be a whole number, not {size!r}"
            elif not least <= size <= most:
                yield "", f"{what} must be at least {least} and at most {most}, not {size}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        declared = json.dumps(self.to_dict(), sort_keys=True)
        return (declared, self.shape, self.classes, self.weights)

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

    # --- where it comes from -----------------------------------------------------------------

    @classmethod
    def load(cls, name_or_path: str | Path) -> Space:
        """A shipped space by name, or a space file by path.

        Raises:
            SpaceError: with every fault's line and column.
        """
        from noahnas.space.load import load_space

        return load_space(name_or_path)

    def bind(
        self,
        backbone: Any = None,
        *,
        blocks: int | None = None,
        width: int | None = None,
        hidden: int | None = None,
        tokens: int | None = None,
        classes: int | None = None,
    ) -> Space:
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
            given = cost.measures(backbone) | given
        elif given.keys() - {"classes"}:
            given["weights"] = 0
        bound = replace(self, **given)
        faults: list[Fault] = []
        bound._compile(bound._told(faults))
        self._refuse(faults)
        return bound

    def with_budget(self, budget: Budget | Amount | int | str) -> Space:
        """The same space under another budget; an amount is one of parameters (`0.64M`)."""
        return replace(self, budget=budget if isinstance(budget, Budget) else Budget(budget))

    def timed(self, latency: Callable[[Arch], float]) -> Space:
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

    # --- genes -------------------------------------------------------------------------------

    def _compile(self, told: Told) -> tuple[dict[str, Part], tuple[Rule, ...]]:
        parts = {
            name: compile_part(name, declared, self.blocks, told)
            for name, declared in self.modules.items()
        }
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

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Per module, alphabetically: its depth, its dims block by block, its attributes.

        Raises:
            SpaceError: if the declaration does not fit the backbone.
        """
        return tuple(gene for part in self.parts.values() for gene in part.genes)

    @cached_property
    def counts(self) -> np.ndarray:
        """How many choices each gene has."""
        return np.array([len(gene.choices) for gene in self.genes])  # genes

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where in a gene vector each module's genes stand."""
        slices, start = {}, 0
        for name, part in self.parts.items():
            slices[name] = slice(start, start + len(part.genes))
            start += len(part.genes)
        return slices

    def decode(self, vector: Sequence[int]) -> Arch:
        """The arch of a gene vector, one choice index per gene, rules apart.

        Raises:
            ArchError: if the vector's length or an index does not fit the genes.
        """
        if len(vector) != len(self.genes):
            raise ArchError(f"{len(vector)} indices for {len(self.genes)} genes")
        for gene, index in zip(self.genes, vector, strict=True):
            if not 0 <= index < len(gene.choices):
                raise ArchError(f"{gene.name} has {len(gene.choices)} choices; no index {index}")
        return Arch.trusted(
            {name: self.parts[name].decode(vector[where]) for name, where in self.slices.items()}
        )

    def active(self, vector: Sequence[int]) -> list[bool]:
        """Which genes of a vector count: depths, dims they reach, attributes of what is there."""
        return [
            on
            for name, where in self.slices.items()
            for on in self.parts[name].active(vector[where])
        ]

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """The lexicographically smallest gene vector that decodes to `arch`.

        Raises:
            ArchError: if the arch is not in the space; says why.
        """
        reason = self.misfit(arch)
        if reason:
            raise ArchError(reason)
        return tuple(self.vector(arch))

    def vector(self, arch: Arch) -> list[int]:
        """The smallest gene vector that decodes to `arch`, rules apart.

        Raises:
            ArchError: if an attribute or a dim is none of the choices.
        """
        values = self.values(self.canonical(arch))
        encodings = {name: part.encodings(values[name]) for name, part in self.parts.items()}
        if not all(encodings.values()) or not set(arch.modules) <= set(self.parts):
            raise ArchError(self.misfit(arch) or "the arch is not in the space")
        return [index for found in encodings.values() for index in found[0]]

    def values(self, arch: Arch) -> dict[str, Mapping[str, Sequence[Value]]]:
        """Every module's values, absent ones' dims being 0, attributes as the arch states them."""
        absent = {"dim": (0,) * self.blocks}
        present = {name: arch[name] for name in arch.modules}
        return {name: present.get(name, absent) for name in self.parts}

    def canonical(self, arch: Arch) -> Arch:
        """The arch without attributes that are at their default wherever their module is."""
        if all(set(arch[name]) == {"dim"} for name in arch.modules):
            return arch
        kept: dict[str, dict[str, tuple[Value, ...]]] = {}
        for name in arch.modules:
            part = arch[name]
            schema = schema_of(name)
            kept[name] = {
                key: row
                for key, row in part.items()
                if key not in schema
                or any(row[i] != schema[key].default for i, dim in enumerate(part["dim"]) if dim)
            }
        return Arch.trusted(kept)

    def contains(self, arch: Arch) -> Contained:
        """Whether the arch is a point of this space, budget apart; false with the reason."""
        return Contained(self.misfit(arch))

    def __contains__(self, arch: object) -> bool:
        return isinstance(arch, Arch) and self.misfit(arch) is None

    def misfit(self, arch: Arch) -> str | None:
        """Why an arch is not a point of this space, budget apart; None if it is one."""
        if arch.blocks not in (0, self.blocks):
            return f"the arch has {arch.blocks} blocks, the space {self.blocks}"
        for name in arch.modules:
            if name not in self.modules:
                return unknown("module", name, self.modules)
        values = self.values(self.canonical(arch))
        for name, part in self.parts.items():
            reason = part.misfit(values[name])
            if reason:
                return reason
        broken = next((r for r in self.bound_rules if nearby.breaks_of(self, arch, r)), None)
        return f"it breaks the rule '{broken}'" if broken else None

    @property
    def choices(self) -> dict[str, dict[str, tuple[Value, ...]]]:
        """Per module and attribute, dim included: every value that any block may take."""
        return {
            name: {"dim": tuple(sorted(set().union(*part.choices)))} | dict(part.attributes)
            for name, part in self.parts.items()
        }

    # --- counting and cost -------------------------------------------------------------------

    @cached_property
    def census(self) -> Census:
        """Every architecture that keeps to the rules, whatever it costs.

        Raises:
            SpaceError: if the rules are too tangled to count.
        """
        try:
            return Census(self.parts, self.bound_rules, None)
        except UncountableError:
            raise self.tangled("there are too many cases to count") from None

    @cached_property
    def relaxed(self) -> Census:
        """Every architecture that keeps to the rules about one module, or if need be to none."""
        alone = [r for r in self.bound_rules if len({t.module for t in terms_of(r)}) == 1]
        try:
            census = Census(self.parts, alone, None)
            census.count()
        except UncountableError:
            census = Census(self.parts, (), None)
        return census

    @property
    def size(self) -> int:
        """Number of distinct architectures, exactly; rules are obeyed, the budget is not applied.

        Raises:
            SpaceError: if the rules are too tangled to count.
        """
        if self.counted_size is None:
            raise self.tangled("there are too many cases to count")
        return self.counted_size

    @cached_property
    def counted_size(self) -> int | None:
        """The size, or None where it is not counted."""
        try:
            return self.census.count()
        except (SpaceError, UncountableError):
            return None

    @property
    def shape(self) -> Shape:
        """What of the backbone decides prices."""
        return Shape(self.blocks, self.width, self.hidden, self.tokens, self.gated)

    @cached_property
    def prices(self) -> cost.Prices:
        """What its modules cost on this backbone."""
        return cost.Prices(self)

    def price(self, module: str, dim: int, **attributes: Value) -> int:
        """Prompt parameters of one of the space's modules at one of its dims, in one block."""
        return self.prices.params(module, dim, attributes)

    def params(self, arch: Arch) -> int:
        """Trainable prompt parameters of an arch of this space; the head is not counted."""
        return self.prices.total(arch)

    def flops(self, arch: Arch) -> int:
        """What an arch of this space adds to the FLOPs of a forward, per image."""
        return self.prices.total(arch, flops=True)

    @property
    def limits(self) -> tuple[int, int | None]:
        """The least and the most prompt parameters that the budget allows; None = no limit."""
        return self.prices.limits

    def feasible(self, arch: Arch) -> bool:
        """Whether an arch of this space meets the budget.

        Its limit on latency counts only if the space can measure (`timed`).
        """
        return self.prices.feasible(arch)

    def obeys(self, arch: Arch) -> bool:
        """Whether an arch made of this space's choices keeps to its rules."""
        return not self.rules or not nearby.violations(self, arch)

    @cached_property
    def largest(self) -> Arch:
        """Every gene at its greatest choice: what a supernet must hold. Rules may forbid it."""
        return self.decode([len(gene.choices) - 1 for gene in self.genes])

    @cached_property
    def cheapest(self) -> Arch:
        """An arch with the fewest parameters; the budget is not applied.

        Raises:
            SpaceError: if nothing obeys the rules, or finding it takes too long.
        """
        return self._extreme("cheapest")

    @cached_property
    def dearest(self) -> Arch:
        """An arch with the most parameters that rules allow; the budget is not applied.

        Raises:
            SpaceError: if nothing obeys the rules, or finding it takes too long.
        """
        return self._extreme("dearest")

    def _extreme(self, only: str) -> Arch:
        try:
            return self.prices.extreme(only)
        except UncountableError:
            raise self.tangled(f"there are too many cases to find the {only}") from None

    def tangled(self, message: str) -> SpaceError:
        """The error of what takes too long to count, at the rules or else the modules."""
        fix = "fewer rules, or rules of one module each" if self.rules else "fewer dims or values"
        return self.refused("rules" if self.rules else "modules", f"{message}: declare {fix}")

    def count(self, params: Amount | int | str | None = None) -> int:
        """Number of distinct architectures with at most `params` prompt parameters, exactly.

        Without argument, under the declared budget; `0.64M` and shares are understood, too.

        Raises:
            SpaceError: if they cannot be counted exactly; says why.
        """
        if params is None or type(params) is int:
            return self.exact.count(params)
        try:
            amount = params_amount(params)
        except ValueError as e:
            raise self.refused("", f"count: {e}") from None
        return self.exact.count(self.prices.amount(amount, up=False))

    # --- drawing -----------------------------------------------------------------------------

    @cached_property
    def exact(self) -> draw.Exact:
        """Counts feasible architectures and draws from them uniformly."""
        return draw.Exact(self)

    @cached_property
    def paper(self) -> Paper:
        """Draws as NOAH does."""
        return Paper(self)

    def draw(self, rng: np.random.Generator) -> Arch:
        """One arch of the paper prior, budget apart: each gene uniform, again until rules hold.

        Where less than a tenth of such draws keep to the rules, the draw is uniform over archs.
        """
        return self.paper.draw(rng)

    def sample(
        self, rng: np.random.Generator, n: int = 1, prior: Literal["exact", "paper"] = "exact"
    ) -> list[Arch]:
        """`n` independent draws of architectures that meet the budget.

        `prior="exact"`: exactly uniform over distinct feasible architectures, by counting; where
        that is infeasible (`space.exact.reason`), by rejection.
        `prior="paper"`: NOAH's draw (each depth uniform, then each dim), by rejection; the exact
        prior where none of 5000 such draws meets the budget.

        Raises:
            SpaceError: if nothing meets the budget, or fewer than one draw in 100 000 does.
        """
        if prior not in ("exact", "paper"):
            raise self.refused("", f"prior must be exact or paper, not {prior!r}")
        if prior == "paper":
            return [self.paper.sample(rng) for _ in range(n)]
        return self.exact.sample(rng, n)

    def shrink(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """The arch with random genes lowered, a step at a time, until it meets the budget.

        Where rules or other limits are in the way, genes are changed at random as long as that
        leads nearer; if nothing does, the arch is drawn anew.

        Raises:
            SpaceError: if nothing meets the budget.
        """
        return repair.shrink(self, arch, rng)

    def check_budget(self) -> None:
        """Raise SpaceError if no architecture of the space meets its rules and budget."""
        self.prices.check()

    def neighbours(self, arch: Arch) -> list[Arch]:
        """The archs of this space one step of one gene away; the budget is not applied.

        Raises:
            ArchError: if the arch is not in the space.
        """
        return nearby.neighbours(self, arch)

    def distance(self, first: Arch, second: Arch) -> int:
        """Steps between the dims of each block, and attributes that differ, summed; a metric.

        Raises:
            ArchError: if an arch is not in the space.
        """
        return nearby.distance(self, first, second)

    def enumerate(self) -> Iterator[Arch]:
        """Every distinct architecture that obeys the rules once, budget apart. For small spaces."""
        seen: set[Arch] = set()
        for index in np.ndindex(*(len(gene.choices) for gene in self.genes)):
            arch = self.decode([int(i) for i in index])
            if arch not in seen and not nearby.violations(self, arch):
                seen.add(arch)
                yield arch
