"""A space and its rules as disjoint cases, in each of which groups of modules are independent."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate

from noahnas.space.automaton import PRESENT, Clause, Limits, ModuleAutomaton
from noahnas.space.count import Content, Counter, Paths
from noahnas.space.genes import Part
from noahnas.space.paths import Joint, UncountableError, Work
from noahnas.space.rules import AtMost, Comparison, Implies, Ordered, Rule, Term, terms_of
from noahnas.space.schema import Value

Price = Callable[[str, int, Mapping[str, Value]], int]  # of a module's dim in one block
MAX_CASES = 5000
MAX_PRICES = 100_000  # combinations of dims and attributes of one module


class Census:
    """The distinct architectures of some modules under rules, by cost.

    Args:
        parts: the modules on a backbone.
        rules: with depths as numbers of blocks.
        price: of a module's dim > 0 in one block; None to count without.
        only: "cheapest" or "dearest": look for such an architecture alone, which takes less.

    Raises:
        UncountableError: if it takes too long.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        rules: Sequence[Rule],
        price: Price | None,
        only: str | None = None,
    ) -> None:
        self.parts, self.rules, self.price = parts, rules, price
        self.blocks = next(iter(parts.values())).blocks
        self.only, self.work = only, Work()
        self._paths: dict[object, Paths] = {}
        if price:
            for part in parts.values():
                combinations = len({d for row in part.choices for d in row})
                for choices in part.attributes.values():
                    combinations *= len(choices)
                if combinations > MAX_PRICES:
                    raise UncountableError
        self.cases = [case for case in self._cases() if not any(p.empty for p in case)]

    # --- cases -------------------------------------------------------------------------------

    def _cases(self) -> list[list[Paths]]:
        """For each combination of what rules tell apart in depths: paths of independent groups."""
        found = []
        terms = {t for rule in self.rules for t in terms_of(rule)}
        modules = sorted({t.module for t in terms if t.attribute == "depth"})
        classes = [self._classes(module) for module in modules]
        total = 1
        for row in classes:
            total *= len(row)
        if total > MAX_CASES:
            raise UncountableError
        for counts in itertools.product(*classes):
            depths = dict(zip(modules, counts, strict=True))
            clauses = self._clauses({m: min(c) for m, c in depths.items()})
            if clauses is not None:
                found.append(self._groups(depths, clauses))
        return found

    def _classes(self, module: str) -> list[frozenset[int]]:
        """Depths of a module (numbers of blocks), those together that no rule tells apart."""
        depth = Term(module, "depth")
        about = [c for rule in self.rules for c in _comparisons(rule) if depth in c.terms]
        found: dict[tuple[object, ...], set[int]] = {}
        for count in range(self.blocks + 1):
            key = tuple(
                count if isinstance(c.right, Term) else c.holds({depth: count}) for c in about
            )
            found.setdefault(key, set()).add(count)
        return [frozenset(counts) for counts in found.values()]

    def _clauses(self, depths: Mapping[str, int]) -> list[Clause] | None:
        """What no block may break, given the depths; None if the depths break a rule themselves."""
        values: dict[Term, Value] = {Term(m, "depth"): n for m, n in depths.items()}
        found: list[Clause] = []
        for rule in self.rules:
            if isinstance(rule, Comparison):
                condition, conclusion = None, rule
            elif isinstance(rule, Implies):
                condition, conclusion = rule.condition, rule.conclusion
            else:
                continue
            met = condition.holds(values) if condition and condition.of_depth else None
            kept = conclusion.holds(values) if conclusion.of_depth else None
            whole = condition is None or condition.of_depth
            if met is False or kept is True:
                continue
            if whole and kept is False:
                return None
            found.append((None if whole else condition, None if kept is False else conclusion))
        return found

    # --- groups ------------------------------------------------------------------------------

    def _groups(
        self, depths: Mapping[str, frozenset[int]], clauses: Sequence[Clause]
    ) -> list[Paths]:
        names = list(self.parts)
        at_most = [rule for rule in self.rules if isinstance(rule, AtMost)]
        at_most = [rule for rule in at_most if rule.count < len(names)]
        own: dict[str, list[Clause]] = {name: [] for name in names}
        shared: list[tuple[Clause, set[str]]] = []
        for clause in clauses:
            modules = {t.module for c in clause if c for t in c.terms}
            if len(modules) == 1:
                own[modules.pop()].append(clause)
            else:
                shared.append((clause, modules))
        together = [{*names}] if at_most else _linked(names, [m for _, m in shared])
        found = []
        for group in together:
            between = [clause for clause, modules in shared if modules <= group]
            limits = {
                name: self._limits(name, depths.get(name), own[name], between, bool(at_most))
                for name in names
                if name in group
            }
            key = (tuple(limits.items()), tuple(between))
            if key not in self._paths:
                automata = [self._automaton(name, limit) for name, limit in limits.items()]
                joint = Joint(automata, between, at_most)
                self._paths[key] = Paths(joint, self.blocks, self.work)
            found.append(self._paths[key])
        return found

    def _limits(
        self,
        name: str,
        counts: frozenset[int] | None,
        own: Sequence[Clause],
        between: Sequence[Clause],
        counted: bool,
    ) -> Limits:
        orders = [r for r in self.rules if isinstance(r, Ordered) and r.term.module == name]
        viewed = {t for clause in between for c in clause if c for t in c.terms}
        viewed = {term for term in viewed if term.module == name}
        if counted:
            viewed.add(Term(name, PRESENT))
        terms = {t for rule in self.rules for t in terms_of(rule) if t.module == name}
        return Limits(
            counts=counts,
            orders=tuple(orders),
            clauses=tuple(own),
            viewed=tuple(sorted(viewed, key=str)),
            mentioned=frozenset(t.attribute for t in terms),
        )

    def _automaton(self, name: str, limits: Limits) -> ModuleAutomaton:
        price = self.price
        if price is None:
            return ModuleAutomaton(self.parts[name], None, limits)
        return ModuleAutomaton(
            self.parts[name], lambda dim, values: price(name, dim, values), limits, self.only
        )

    # --- what there is -----------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether the rules leave nothing."""
        return not self.cases

    def extreme(self) -> Content:
        """One of the cheapest, or with `only="dearest"` of the dearest, architectures."""
        least = self.only != "dearest"

        def cost(case: Sequence[Paths]) -> float:
            return sum(p.first.low if least else -p.first.high for p in case)

        found: Content = {}
        for paths in min(self.cases, key=cost):
            found |= paths.extreme(least)
        return found

    @cached_property
    def _counters(self) -> list[Counter]:
        return [Counter(case, self.work) for case in self.cases]

    def count(self, low: int = 0, high: int = 0) -> int:
        """Number of distinct architectures that cost `low` to `high`."""
        return sum(counter.count(low, high) for counter in self._counters)

    def unrank(self, index: int, low: int = 0, high: int = 0) -> Content:
        """The architecture number `index` (from 0) among those that cost `low` to `high`.

        Raises:
            IndexError: if there are not so many.
        """
        running = self._running(low, high)
        if not running or not 0 <= index < running[-1]:
            raise IndexError(f"no architecture {index} of {running[-1] if running else 0}")
        which = bisect_right(running, index)
        before = running[which - 1] if which else 0
        return self._counters[which].unrank(index - before, low, high)

    def _running(self, low: int, high: int) -> list[int]:
        if self._window != (low, high):
            self._window = (low, high)
            self._sums = list(accumulate(c.count(low, high) for c in self._counters))
        return self._sums

    _window: tuple[int, int] | None = None
    _sums: list[int] = []  # noqa: RUF012  # replaced, never changed


def _comparisons(rule: Rule) -> list[Comparison]:
    if isinstance(rule, Implies):
        return [rule.condition, rule.conclusion]
    return [rule] if isinstance(rule, Comparison) else []


def _linked(names: Sequence[str], links: Sequence[set[str]]) -> list[set[str]]:
    """The names in groups: those together that a chain of links joins."""
    groups = [{name} for name in names]
    for link in links:
        joined = set().union(*(g for g in groups if g & link))
        groups = [g for g in groups if not g & link] + [joined]
    return groups
