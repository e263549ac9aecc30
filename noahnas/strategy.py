"""What a strategy is, and how one is found: a function of (space, seed, history)."""

from __future__ import annotations

import inspect
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from noahnas.data import Task
from noahnas.errors import StrategyError, unknown
from noahnas.evaluate import Result
from noahnas.progress import Report
from noahnas.registry import installed, resolve
from noahnas.space import Arch, Space
from noahnas.supernet import Supernet

GROUP = "noahnas.strategies"
TRIES = 1000  # draws without a new arch, after which a strategy gives up by default


@dataclass(frozen=True, slots=True)
class Proposal:
    """An arch to evaluate."""

    arch: Arch
    images: int | None = None  # validation images that suffice; None = all


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluated arch."""

    proposal: Proposal
    result: Result
    cost: float | None = None  # in the unit of a `Multiobjective` strategy's axis, else None

    @property
    def arch(self) -> Arch:
        """The arch evaluated."""
        return self.proposal.arch


class Strategy(ABC):
    """Proposes architectures; learns from what they scored.

    A strategy's state is a function of (space, seed, history): randomness comes from `rng()`,
    which depends on the seed and the length of the history, never from a generator carried along.
    So a search that died goes on with a new strategy of the same seed that is told the history
    again, in one piece or in many.

    Options are keyword arguments of the subclass's `__init__` after `(space, seed)`, each with a
    type and a default; `--set name=value` is checked against them.
    """

    summary: ClassVar[str] = ""  # one line for `noahnas strategies`

    def __init__(self, space: Space, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.history: list[Trial] = []
        self._seen: set[Arch] = set()
        self._absorbed = 0  # trials of the history that `_seen` holds

    @abstractmethod
    def ask(self, n: int) -> list[Proposal]:
        """At most `n` feasible architectures, distinct and not in the history; [] = no more.

        On another number of images than before, an architecture counts as a new one.
        """

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn what was evaluated, in the order it was asked for."""
        self.history.extend(trials)

    def rng(self) -> np.random.Generator:
        """The generator of the next ask."""
        return np.random.default_rng([self.seed, len(self.history)])

    @property
    def seen(self) -> set[Arch]:
        """The archs of the history."""
        self._seen.update(trial.arch for trial in self.history[self._absorbed :])
        self._absorbed = len(self.history)
        return self._seen

    def fresh(self, draw: Callable[[int], Arch], n: int, tries: int = TRIES) -> list[Proposal]:
        """`n` proposals from `draw(position)`, new and within rules and budget; fewer at the end.

        `position` counts this strategy's proposals from the start of the search; at each, `tries`
        draws are made before it gives up.
        """
        seen, found = self.seen, dict[Arch, None]()
        for position in range(len(self.history), len(self.history) + n):
            new = (a for a in self._feasible(draw, position, tries) if a not in seen)
            arch = next((a for a in new if a not in found), None)
            if arch is None:
                break
            found[arch] = None
        return [Proposal(arch) for arch in found]

    def _feasible(self, draw: Callable[[int], Arch], position: int, tries: int) -> Iterator[Arch]:
        for _ in range(tries):
            arch = draw(position)
            if self.space.obeys(arch) and self.space.feasible(arch):
                yield arch


class Multiobjective(Strategy):
    """A strategy that looks for a front: accuracy against a cost.

    The loop asks for each trial's cost when it is evaluated and keeps it in the study, so that what
    was measured once is told again after a resume (`Trial.cost`).
    """

    axis: str = "params"  # what the cost is, with its unit if it has one

    @abstractmethod
    def cost(self, arch: Arch) -> float:
        """What an arch costs; less is better."""

    @abstractmethod
    def limit(self) -> float | None:
        """The cost to which a front's hypervolume reaches; None = that of the dearest trial."""


class OneShot(Strategy):
    """A strategy that trains something of its own on the supernet before it proposes."""

    @abstractmethod
    def begin(
        self, supernet: Supernet, task: Task, checkpoint: Path, report: Report = lambda _: None
    ) -> tuple[int, float]:
        """Train on a copy of `supernet`, on train and val of `task`; returns passes and seconds.

        Called once before the first ask, and again after a resume: what it finds in `checkpoint`,
        a file of its own that it writes whole or not at all, it does not do again.
        """


def strategies() -> list[str]:
    """Names of the installed strategies."""
    return list(installed(GROUP))


def make_strategy(
    name: str, space: Space, seed: int, options: Mapping[str, str] | None = None
) -> Strategy:
    """A strategy by name, its options given as text.

    Raises:
        StrategyError: if the name or an option is unknown, or a value is not of the option's type.
    """
    kind: type[Strategy] = resolve(GROUP, name, "strategy", StrategyError)
    known = options_of(kind)
    values = {}
    for key, text in (options or {}).items():
        if key not in known:
            raise StrategyError(f"{name}: {unknown('option', key, known)}")
        values[key] = _value(name, key, text, known[key].annotation)
    try:
        return kind(space, seed, **values)
    except ValueError as e:
        raise StrategyError(f"{name}: {e}") from e


def options_of(kind: type[Strategy]) -> dict[str, inspect.Parameter]:
    """A strategy's options: the parameters of its `__init__` after `(self, space, seed)`."""
    hints = typing.get_type_hints(kind.__init__)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[3:]
    return {p.name: p.replace(annotation=hints.get(p.name, str)) for p in parameters}


def _value(strategy: str, key: str, text: str, kind: Any) -> Any:
    """The text of an option as a str, int, float, bool or Literal; `X | None` counts as X."""
    kinds = [k for k in typing.get_args(kind) if k is not type(None)]
    if isinstance(kind, types.UnionType) and len(kinds) == 1:
        kind = kinds[0]
    if typing.get_origin(kind) is Literal:
        if text not in typing.get_args(kind):
            raise StrategyError(f"{strategy}: {unknown(key, text, typing.get_args(kind))}")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise StrategyError(f"{strategy}: {key} is true or false, not '{text}'")
        return text.lower() == "true"
    if kind not in (str, int, float):
        raise StrategyError(f"{strategy}: {key} is of type {kind}, which --set cannot give")
    try:
        return kind(text)
    except ValueError:
        raise StrategyError(f"{strategy}: {key} is of type {kind.__name__}, not '{text}'") from None
