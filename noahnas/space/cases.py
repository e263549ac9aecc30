"""A space and its rules as disjoint cases, in each of which groups of modules are independent."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate

from noahnas.space.alike import Classes, alike
from noahnas.space.automaton import Known, ModuleAutomaton
from noahnas.space.count import Content, Counter, Paths
from noahnas.space.genes import Part
from noahnas.space.joint import Joint, Step
from noahnas.space.option import PRESENT, Clause, Limits, Option
from noahnas.space.rules import AtMost, Comparison, Implies, Ordered, Rule, Term, broken, terms_of
from noahnas.space.schema import Value
from noahnas.space.work import Work

Price = Callable[[str, int, Mapping[str, Value]], int]  # of a module's dim in one block
CASE_WORK = 40  # what a combination of depths costs, in sums


class Census:
    """The distinct architectures of some modules under rules, by cost.

    Args:
        parts: the modules on a backbone.
        rules: with depths as numbers of blocks.
        price: of a module's dim > 0 in one block; None to count without.
        only: "cheapest" or "dearest": look for such an architecture alone, which takes less.
        most: a cost beyond which nothing is counted, which takes less; None to count all.
        work: what it may cost.
        alike: classes of attributes, by module, that others found for the same price.

    Raises:
        UncountableError: if it takes too long.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        rules: Sequence[Rule],
        price: Price | None,
        only: str | None = None,
        most: int | None = None,
        work: Work | None = None,
        alike: dict[tuple[str, frozenset[str]], list[Classes]] | None = None,
    ) -> None:
        self.parts, self.rules, self.price = parts, rules, price
        self.blocks = next(iter(parts.values())).blocks
        self.only, self.work = only, work or Work()
        self._paths: dict[object, Paths] = {}
        self._known: dict[tuple[str, Limits], dict[Known, tuple[Option | None, list[Option]]]] = {}
        self._steps: dict[str, dict[int, Step]] = {}
        self._alike = {} if alike is None else alike
        self._of: dict[tuple[str, frozenset[int] | None], Paths] = {}
        self._at_most = [
            rule for rule in rules if isinstance(rule, AtMost) and rule.count < len(parts)
        ]
        self.cases = [case for case in self._cases() if not any(p.empty for p in case)]
        self.most = math.inf if most is None else most
        for case in self.cases:
            least = sum(paths.first.low for paths in case)
            for paths in case:
                paths.most = max(paths.most, self.most - (least - paths.first.low))

    # --- cases -------------------------------------------------------------------------------

    def _cases(self) -> list[list[Paths]]:
        """For each combination of what rules tell apart in depths: paths of independent groups."""
        found = []
        for depths in self._depths():
            self.work.spend(CASE_WORK)
            clauses = self._clauses({m: min(c) for m, c in depths.items()})
            if clauses is not None:
                found.append(self._groups(depths, clauses))
        return found

    def _depths(self) -> list[dict[str, frozenset[int]]]:
        """Depths of the modules that rules ask for, those left out that break a rule themselves.

        Modules are taken one after the other, and a rule is applied as soon as all of its are.
        """
        terms = {t for rule in self.rules for t in terms_of(rule)}
        found: list[dict[str, frozenset[int]]] = [{}]
        for module in sorted({t.module for t in terms if t.attribute == "depth"}):
            known = {*found[0], module}
            rules = [
                rule
                for rule in self.rules
                if (about := _comparisons(rule))
                and all(c.of_depth for c in about)
                and module in (names := {t.module for t in terms_of(rule)})
                and names <= known
            ]
            longer: list[dict[str, frozenset[int]]] = []
            classes = self._classes(module)
            for depths in found:
                self.work.spend(CASE_WORK // 4 * len(classes) * (1 + len(rules)))
                values: dict[Term, Value] = {Term(m, "depth"): min(c) for m, c in depths.items()}
                for counts in classes:
                    values[Term(module, "depth")] = min(counts)
                    if not any(_breaks(rule, values) for rule in rules):
                        longer.append({**depths, module: counts})
            found = longer
            if not found:
                break
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
        if not clauses and not self._at_most:
            return [self._only(name, depths.get(name)) for name in self.parts]
        names = list(self.parts)
        own: dict[str, list[Clause]] = {name: [] for name in names}
        shared: list[tuple[Clause, set[str]]] = []
        for clause in clauses:
            modules = {t.module for c in clause if c for t in c.terms}
            if len(modules) == 1:
                own[modules.pop()].append(clause)
            else:
                shared.append((clause, modules))
        at_most = self._at_most
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

    def _only(self, name: str, counts: frozenset[int] | None) -> Paths:
        """The paths of a module that no rule looks at in single blocks."""
        if (name, counts) not in self._of:
            limits = self._limits(name, counts, (), (), counted=False)
            steps = self._steps.setdefault(name, {})
            joint = Joint([self._automaton(name, limits)], (), (), steps)
            self._of[name, counts] = Paths(joint, self.blocks, self.work)
        return self._of[name, counts]

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
        about: list[Comparison | Ordered] = [c for r in self.rules for c in _comparisons(r)]
        about += orders
        return Limits(
            counts=counts,
            orders=tuple(orders),
            clauses=tuple(own),
            viewed=tuple(sorted(viewed, key=str)),
            mentioned=frozenset(t.attribute for t in terms),
            dims=tuple(rule for rule in about if Term(name, "dim") in terms_of(rule)),
        )

    def _automaton(self, name: str, limits: Limits) -> ModuleAutomaton:
        part, price = self.parts[name], self.price
        of = None if price is None else lambda dim, values: price(name, dim, values)
        key = (name, limits.mentioned)
        if key not in self._alike:
            self._alike[key] = alike(part, of, limits.mentioned, self.work)
        only = None if price is None else self.only
        shared = (name, replace(limits, counts=limits.counts and frozenset()))
        known = self._known.setdefault(shared, {})
        return ModuleAutomaton(part, of, limits, self._alike[key], only, known)

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
        return [Counter(case, self.work, self.most) for case in self.cases]

    def count(self, low: int = 0, high: int = 0) -> int:
        """Number of distinct architectures that cost `low` to `high`, which is at most `most`."""
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


def _breaks(rule: Rule, values: Mapping[Term, Value]) -> bool:
    """Whether depths break a rule that is about nothing else."""
    if isinstance(rule, Implies):
        return broken(rule.condition, rule.conclusion, values)
    return isinstance(rule, Comparison) and broken(None, rule, values)


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
