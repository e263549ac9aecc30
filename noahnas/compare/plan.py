"""The plan of a comparison: who takes part, on which supernets, with which seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from noahnas.errors import RunError, SpaceError, StrategyError
from noahnas.inputs import Inputs
from noahnas.registry import origin
from noahnas.space import Space
from noahnas.strategy import GROUP, make_strategy, strategies
from noahnas.typed import typed

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # a part of paths


@dataclass(frozen=True)
class Entrant:
    """A strategy with its options, under a label of its own."""

    label: str
    strategy: str
    options: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {"strategy": self.strategy, "options": dict(self.options)}


@dataclass(frozen=True)
class Shared:
    """A supernet that every entrant searches: trained with a seed, or another run's."""

    name: str  # part of paths
    seed: int
    run: str | None = None  # another run, whose supernet is used


@dataclass(frozen=True)
class Cell:
    """One search: an entrant on a supernet with a seed."""

    entrant: Entrant
    supernet: Shared
    seed: int

    @property
    def place(self) -> str:
        """Where it stands below the comparison's directory."""
        return f"searches/{self.entrant.label}/{self.supernet.name}/seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.entrant.label} · {self.supernet.name} · seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """All that a comparison depends on."""

    inputs: Inputs  # of every search; its seed, strategy and supernet are not used
    entrants: tuple[Entrant, ...]
    supernets: tuple[Shared, ...]
    seeds: tuple[int, ...]
    retrain_seeds: tuple[int, ...]  # those whose winners are retrained
    against: str = "random"  # the label that the others are tested against
    left_out: Mapping[str, str] = field(default_factory=dict)  # label → why it cannot take part

    @property
    def space(self) -> Space:
        """The space searched, not bound."""
        assert self.inputs.space is not None  # `check` has seen it
        return self.inputs.space

    @property
    def trials(self) -> int:
        """Distinct architectures that a search may evaluate."""
        return self.inputs.recipe.trials

    def cells(self, supernet: Shared) -> Iterator[Cell]:
        """The searches of one supernet."""
        for entrant in self.entrants:
            for seed in self.seeds:
                yield Cell(entrant, supernet, seed)

    def grid(self) -> dict[str, Any]:
        """Plain values: what may grow when a comparison goes on, and who took part."""
        return {
            "entrants": {e.label: e.to_dict() for e in self.entrants},
            "supernets": {s.name: {"seed": s.seed, "run": s.run} for s in self.supernets},
            "seeds": list(self.seeds),
            "retrain_seeds": list(self.retrain_seeds),
            "against": self.against,
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_dict(cls, inputs: Mapping[str, Any], grid: Mapping[str, Any]) -> Plan:
        """The inverse of `Inputs.to_dict` and `grid`.

        Raises:
            ValueError: if a value is missing or of another kind, or a name is no part of a path.
        """
        given = {
            "inputs": Inputs.from_dict(inputs),
            "entrants": [{"label": label, **e} for label, e in grid["entrants"].items()],
            "supernets": [{"name": name, **s} for name, s in grid["supernets"].items()],
        }
        rest = ("seeds", "retrain_seeds", "against", "left_out")
        plan = typed(cls, given | {key: grid[key] for key in rest}, "grid")
        for name in (*grid["entrants"], *grid["supernets"]):
            if not LABEL.fullmatch(name):
                raise ValueError(f"{name!r} is no label: letters, digits, _ and -")
        return plan


def entrants_of(words: Sequence[str], options: Mapping[str, str]) -> tuple[Entrant, ...]:
    """Entrants from `NAME` or `LABEL=NAME`, or `all`; options are keyed `LABEL.option`.

    Raises:
        StrategyError: if a label is odd or given twice, or an option's label takes no part.
    """
    if list(words) == ["all"]:
        words = strategies()
    pairs = [(left, right or left) for left, _, right in (word.partition("=") for word in words)]
    labels = [label for label, _ in pairs]
    for label in labels:
        if not LABEL.fullmatch(label):
            raise StrategyError(f"'{label}' is no label: letters, digits, _ and -")
        if labels.count(label) > 1:
            raise StrategyError(
                f"'{label}' takes part twice; give one a label of its own: other={label}"
            )
    own: dict[str, dict[str, str]] = {label: {} for label in labels}
    for key, value in options.items():
        label, dot, option = key.partition(".")
        if not dot or label not in own:
            raise StrategyError(
                f"option '{key}': give it as LABEL.option=value, LABEL being one of "
                f"{', '.join(labels)}"
            )
        own[label][option] = value
    return tuple(Entrant(label, name, own[label]) for label, name in pairs)


def fitting(plan: Plan, space: Space, forgiving: bool) -> Plan:
    """The plan without entrants that cannot search a bound space.

    Raises:
        StrategyError: if one cannot and `forgiving` is not set, or none can.
    """
    kept, left_out = [], dict(plan.left_out)
    for entrant in plan.entrants:
        try:
            make_strategy(entrant.strategy, space, 0, entrant.options)
        except (StrategyError, SpaceError) as e:
            if not forgiving:
                raise
            left_out[entrant.label] = str(e)
        else:
            kept.append(entrant)
    if not kept:
        told = "; ".join(f"{label}: {why}" for label, why in left_out.items())
        raise StrategyError(f"no strategy can search this space: {told}")
    return replace(plan, entrants=tuple(kept), left_out=left_out)


def origins(plan: Plan) -> dict[str, str]:
    """The distribution that each entrant's strategy comes from."""
    return {entrant.label: origin(GROUP, entrant.strategy) for entrant in plan.entrants}


def trained_with(seeds: Sequence[int]) -> tuple[Shared, ...]:
    """Supernets to train, one a seed."""
    return tuple(Shared(f"supernet-{seed}", seed) for seed in seeds)


def reused(runs: Sequence[Path]) -> tuple[Shared, ...]:
    """Supernets of other runs."""
    return tuple(Shared(f"reused-{i}", i, str(run.resolve())) for i, run in enumerate(runs))


def check_same(began: Mapping[str, Any], plan: Plan, out: Path) -> None:
    """Raise RunError unless a comparison that was begun can go on as planned.

    Seeds, supernets and entrants may be added or left out; what is done is then read. All else must
    be as it was.
    """
    both = (began["inputs"], plan.inputs.to_dict())
    then, now = (Inputs.from_dict(json.loads(json.dumps(each))).to_dict() for each in both)
    differ = [key for key in sorted({*then, *now} - {"threads"}) if then.get(key) != now.get(key)]
    known, grid = began["known"], plan.grid()
    for part in ("entrants", "supernets"):
        differ += [
            label
            for label, value in grid[part].items()
            if label in known[part] and known[part][label] != value
        ]
    if differ:
        raise RunError(
            f"{out} was begun with other inputs ({', '.join(differ)}); choose another --out, or go "
            f"on with it as it was: noahnas compare --resume {out}"
        )
