"""What architectures of a space cost, and whether that is within its budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from noahnas.errors import SpaceError
from noahnas.space.alike import Classes, alike
from noahnas.space.arch import Arch
from noahnas.space.budget import BACKBONE, DEAREST, Amount, backbone_params
from noahnas.space.cases import Census, Price
from noahnas.space.declaration import flops_of, params_of
from noahnas.space.flops import backbone_flops
from noahnas.space.possible import check_flops, check_params
from noahnas.space.schema import Value
from noahnas.space.work import EXTREME_WORK, LOOK_WORK, SOUGHT_WORK, UncountableError, Work

if TYPE_CHECKING:
    from noahnas.space.space import Space


class Prices:
    """Costs of a space's architectures on its backbone, found once each."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._params: dict[tuple[object, ...], int] = {}
        self._flops: dict[tuple[object, ...], int] = {}
        self._latency: dict[Arch, float] = {}
        self._extremes: dict[tuple[str, bool], Arch | None] = {}
        self._censuses: dict[int, Census] = {}
        self._alike: dict[str, dict[tuple[str, frozenset[str]], list[Classes]]] = {}
        self._classes: dict[tuple[str, bool], list[Classes]] = {}
        self._checked = False

    def params(self, module: str, dim: int, attributes: Mapping[str, Value]) -> int:
        """Prompt parameters of a module in one block."""
        key = (module, dim, *attributes.items())
        if key not in self._params:
            try:
                cost = params_of(module, self.space.shape, dim, **attributes) if dim else 0
            except ValueError as e:  # a dim that the module cannot have
                raise self.space.refused(f"{module}.dim", f"{module}.dim: {e}") from None
            self._params[key] = cost
        return self._params[key]

    def flops(self, module: str, dim: int, attributes: Mapping[str, Value]) -> int:
        """FLOPs per image that a module adds in one block."""
        key = (module, dim, *attributes.items())
        if key not in self._flops:
            cost = flops_of(module, self.space.shape, dim, **attributes) if dim else 0
            self._flops[key] = cost
        return self._flops[key]

    def total(self, arch: Arch, *, flops: bool = False) -> int:
        """The sum over an arch's modules and blocks."""
        price = self.flops if flops else self.params
        total = 0
        for name in arch.modules:
            part = arch[name]
            others = [key for key in part if key != "dim"]
            if not others:
                dims = Counter(arch.dims(name))
                total += sum(price(name, dim, {}) * n for dim, n in dims.items() if dim)
                continue
            for block, dim in enumerate(arch.dims(name)):
                if dim:
                    total += price(name, dim, {key: part[key][block] for key in others})
        return total

    # --- the budget --------------------------------------------------------------------------

    def census(self, most: int) -> Census:
        """Architectures of at most so many parameters.

        Raises:
            UncountableError: if that takes too long.
        """
        if most not in self._censuses:
            self._censuses[most] = self._counted(self.params, most=most)
        return self._censuses[most]

    def _counted(
        self,
        price: Price,
        only: str | None = None,
        most: int | None = None,
        work: Work | None = None,
    ) -> Census:
        known = self._alike.setdefault(price.__name__, {})
        return Census(self.space.parts, self.space.bound_rules, price, only, most, work, known)

    def told_apart(self, module: str, *, flops: bool = False) -> list[Classes]:
        """For each attribute its choices, those together that no price tells apart."""
        price, part = self.flops if flops else self.params, self.space.parts[module]
        if (module, flops) not in self._classes:
            try:
                of = partial(price, module)
                found = alike(part, of, work=Work(LOOK_WORK))
            except UncountableError:
                found = [[[value] for value in choices] for choices in part.attributes.values()]
            self._classes[module, flops] = found
        return self._classes[module, flops]

    def extreme(self, only: str, *, flops: bool = False) -> Arch:
        """The "cheapest" or the "dearest" arch, in parameters or in FLOPs; looked for once.

        Raises:
            UncountableError: if finding it takes too long.
            SpaceError: if no arch obeys the rules.
        """
        if (only, flops) not in self._extremes:
            self._extremes[only, flops] = self._extreme(only, self.flops if flops else self.params)
        found = self._extremes[only, flops]
        if found is None:
            raise UncountableError
        return found

    def found(self, only: str) -> Arch | None:
        """The "cheapest" or the "dearest" arch in parameters; None if finding it takes too long."""
        try:
            return self.extreme(only)
        except UncountableError:
            return None

    def sought(self, only: str) -> Arch:
        """As `extreme`, with more patience."""
        try:
            return self.extreme(only)
        except UncountableError:
            self._extremes[only, False] = self._extreme(only, self.params, SOUGHT_WORK)
            return self.extreme(only)

    def _extreme(self, only: str, price: Price, most: int = EXTREME_WORK) -> Arch | None:
        if self.space.counted_size is None:  # then this takes too long as well
            return None
        try:
            census = self._counted(price, only, work=Work(most))
        except UncountableError:
            return None
        if census.empty:
            raise self.ruled_out
        return Arch.trusted(census.extreme())

    @property
    def ruled_out(self) -> SpaceError:
        """The error of a space whose rules leave nothing."""
        return self.space.refused("rules", "no architecture obeys all rules")

    @cached_property
    def extremes(self) -> tuple[int, int] | None:
        """Parameters of the cheapest and of the dearest arch; None if those are not found."""
        try:
            return tuple(self.total(self.extreme(only)) for only in ("cheapest", "dearest"))  # type: ignore[return-value]
        except UncountableError:
            return None

    @cached_property
    def counted(self) -> int | None:
        """How many archs are within the limits on parameters; None if that is not counted."""
        low, high = self.limits
        try:
            if high is None:
                high = self.total(self.extreme("dearest"))
            return self.census(high).count(low, high)
        except UncountableError:
            return None

    @cached_property
    def limits(self) -> tuple[int, int | None]:
        """The least and the most prompt parameters that the budget allows.

        Raises:
            SpaceError: if the budget counts the head and the number of classes is not known.
        """
        budget = self.space.budget
        if not budget:
            return 0, None
        low = self.amount(budget.least, up=True) if budget.least is not None else 0  # type: ignore[arg-type]
        high = self.amount(budget.params, up=False) if budget.params is not None else None  # type: ignore[arg-type]
        head = self._head if budget.head else 0
        if high is not None and head > high:
            message = (
                f"the head alone has {head} of the {high} parameters that the budget allows: "
                "raise the budget, or leave the head out of it (head: false)"
            )
            raise self.space.refused("budget.params", message)
        return max(low - head, 0), None if high is None else high - head

    @property
    def _head(self) -> int:
        if self.space.classes is None:
            message = (
                "the budget counts the head, whose size depends on the classes: say how many "
                "(--classes 10, or bind(classes=10))"
            )
            raise self.space.refused("budget", message)
        return self.space.classes * (self.space.width + 1)

    def amount(self, amount: Amount, *, up: bool) -> int:
        """An amount of parameters as a whole number, a fraction rounded."""
        whole = 1
        if amount.unit == BACKBONE:
            whole = self.space.weights or backbone_params(self.space.shape)
        elif amount.unit == DEAREST:
            whole = self.space.params(self.space.dearest)
        value = amount.value * whole / (100 if amount.unit else 1)
        return math.ceil(value) if up else math.floor(value)

    def within(self, arch: Arch) -> bool:
        """Whether its parameters are within the budget."""
        low, high = self.limits
        return low <= self.total(arch) <= (math.inf if high is None else high)

    def feasible(self, arch: Arch) -> bool:
        """Whether it meets every limit of the budget."""
        budget = self.space.budget
        if not budget:
            return True
        if not self.within(arch):
            return False
        most = self.flops_limit
        if most is not None and self.total(arch, flops=True) > most:
            return False
        return not self.timed or self._in_time(arch)

    @cached_property
    def flops_limit(self) -> int | None:
        """FLOPs that may be added to the frozen backbone's; None if they are not limited."""
        budget = self.space.budget
        amount: Any = budget.flops if budget else None
        return (
            None
            if amount is None
            else int((amount.value - 1) * backbone_flops(self.space.shape) // 1)
        )

    @property
    def timed(self) -> bool:
        """Whether there is a limit on latency, and a way to measure it."""
        budget = self.space.budget
        return bool(budget and budget.latency and self.space.latency)

    def _in_time(self, arch: Arch) -> bool:
        assert self.space.budget  # asked of such spaces only
        amount: Any = self.space.budget.latency
        unit = self._measured(Arch()) if amount.unit == "x" else 1.0
        return self._measured(arch) <= float(amount.value) * unit

    def _measured(self, arch: Arch) -> float:
        assert self.space.latency  # asked of such spaces only
        if arch not in self._latency:
            self._latency[arch] = self.space.latency(arch)
        return self._latency[arch]

    def check(self) -> None:
        """Raise SpaceError if nothing is within the limits on parameters or on FLOPs.

        What takes too long to find out is left to the draws.
        """
        if not self._checked:
            check_params(self)
            check_flops(self)
            self._checked = True
