"""Baselines that cost one evaluation: what a search has to beat."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

from noahnas.space import Arch, Budget, Space
from noahnas.space.genes import Gene
from noahnas.space.schema import Value
from noahnas.strategy import Proposal, Strategy

DRAWS = 200  # where what is largest is not counted: draws from which the climb starts


class Baseline(Strategy):
    """One arch that is chosen without looking at data."""

    @abstractmethod
    def arch(self) -> Arch:
        """The arch.

        Raises:
            SpaceError: if there is none.
        """

    def ask(self, n: int) -> list[Proposal]:
        """The arch, once."""
        return [] if self.history else [Proposal(self.arch())]

    def meets(self, arch: Arch) -> bool:
        """Whether it keeps to rules and budget."""
        return self.space.obeys(arch) and self.space.feasible(arch)


class Max(Baseline):
    """The feasible arch with the most parameters; of several one, drawn by the seed.

    Found exactly, by counting. Where the budget limits FLOPs or latency, or the space cannot be
    counted, it is the largest that climbing from 200 draws by single steps finds.

    Not a search. Where it wins, the budget did not bind, or size is all that matters.
    """

    summary = "the feasible arch with the most parameters; one evaluation"

    def arch(self) -> Arch:
        """The largest, with the seed deciding between equals."""
        space, rng = self.space, self.rng()
        if space.exact.reason is None and space.prices.counted is not None:
            most = self._most()
            return replace(space, budget=Budget(most, most)).sample(rng)[0]
        size = {arch: space.params(arch) for arch in space.sample(rng, DRAWS)}
        best = max(size, key=lambda a: size[a])
        while True:
            above = [a for a in space.neighbours(best) if space.params(a) > space.params(best)]
            above = [a for a in above if self.meets(a)]
            if not above:
                return best
            best = max(above, key=space.params)

    def _most(self) -> int:
        """The largest number of parameters within the budget, by bisection of counts."""
        space = self.space
        dearest = space.params(space.dearest)
        low, high = space.limits
        high = dearest if high is None else min(high, dearest)
        total = space.count(high)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if space.count(middle) == total else (middle + 1, high)
        return low


class Middle(Baseline):
    """Every gene at the middle of its choices, all lowered together until the budget is met.

    With n choices in ascending order, and those of words in the order of their schema, gene by
    gene the choice ⌊t·(n−1)⌋ counted from 0: t = 1/2 is the middle, of two the lower. The largest
    t ≤ 1/2 at which rules and budget hold is taken. If none is, the middle is led to them by random
    single steps, drawn by the seed (`Space.shrink`).

    Not a search: the arch that one would guess.
    """

    summary = "every gene at its middle choice, scaled to the budget; one evaluation"

    def arch(self) -> Arch:
        """The middle, scaled."""
        for t in self._scales():
            arch = self._scaled(t)
            if self.meets(arch):
                return arch
        return self.space.shrink(self._scaled(Fraction(1, 2)), self.rng())

    def _scales(self) -> list[Fraction]:
        steps = {count - 1 for count in self.space.counts.tolist() if count > 1}
        found = {Fraction(k, n) for n in steps for k in range(n // 2 + 1)} | {Fraction(1, 2)}
        return sorted(found, reverse=True)

    def _scaled(self, t: Fraction) -> Arch:
        return self.space.decode([int(t * (count - 1)) for count in self.space.counts.tolist()])


class Single(Baseline):
    """The widest uniform feasible arch of one module.

    Uniform: one dim in all blocks that the module reaches — where a block does not offer it, the
    next smaller that it does. The greatest depth at which any dim is feasible is taken, and there
    the widest dim. Attributes are at their defaults, or else at the first choice. Other modules are
    left out, or as small as the space lets them be.

    `module` says which; by default the one whose arch has the most parameters.

    Not a search: it shows what mixing modules and widths is worth.

    Raises:
        ValueError: if the space has no such module.
        SpaceError: if no such arch is feasible.
    """

    summary = "the widest uniform feasible arch of one module; one evaluation"

    def __init__(self, space: Space, seed: int, module: str | None = None) -> None:
        super().__init__(space, seed)
        if module is not None and module not in space.parts:
            raise ValueError(f"the space has no module '{module}' ({', '.join(space.parts)})")
        self.module = module

    def arch(self) -> Arch:
        """The widest of the module, or of the module whose widest is largest."""
        names = [self.module] if self.module else list(self.space.parts)
        found = [arch for name in names if (arch := self._widest(name))]
        if not found:
            told = self.module or "any module"
            message = f"no uniform arch of {told} meets rules and budget: raise the budget"
            raise self.space.refused("budget" if self.space.budget else "rules", message)
        return max(found, key=self.space.params)

    def _widest(self, name: str) -> Arch | None:
        return next((arch for arch in self._uniform(name) if self.meets(arch)), None)

    def _uniform(self, name: str) -> Iterator[Arch]:
        part = self.space.parts[name]
        dims = sorted({dim for choices in part.choices for dim in choices if dim}, reverse=True)
        for depth in reversed(range(len(part.depths))):
            for dim in dims if part.depths[depth] else ():
                vector = [0] * len(self.space.genes)
                vector[self.space.slices[name]] = [
                    depth if gene.attribute == "depth" else _index(gene, dim, part.defaults)
                    for gene in part.genes
                ]
                yield self.space.decode(vector)


def _index(gene: Gene, dim: int, defaults: Mapping[str, Value]) -> int:
    if gene.attribute == "dim":
        return max([i for i, choice in enumerate(gene.choices) if int(choice or 0) <= dim] or [0])
    default = defaults[gene.attribute]
    return gene.choices.index(default) if default in gene.choices else 0
