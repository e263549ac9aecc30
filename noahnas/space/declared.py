"""What can be wrong with a declaration before a backbone is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from noahnas.errors import unknown
from noahnas.registry import installed
from noahnas.space.declaration import ModuleSpace, fault_of, schema_of
from noahnas.space.rules import Comparison, Implies, Ordered, Rule, Term, terms_of
from noahnas.space.schema import LISTED, Value
from noahnas.space.selectors import check_selector

Told = Callable[[str, str], None]  # key of the declaration, what is wrong with it
RESERVED = ("dim", "depth", "from", "tie", "blocks")  # keys of a module that are no attributes


def declared_faults(modules: Mapping[str, ModuleSpace], rules: Sequence[Rule], told: Told) -> None:
    """Tell every fault: unknown modules, attributes that their schema refuses, stray rules."""
    if not modules:
        told("modules", "no modules")
    known = installed("noahnas.modules")
    for name, declared in modules.items():
        if name not in known:
            told(f"modules.{name}", unknown("module", name, known))
            continue
        for text in declared.blocks:
            try:
                check_selector(text)
            except ValueError as e:
                told(f"{name}.blocks.{text}", f"{name}.blocks: {e}")
        schema = schema_of(name) if declared.offered else {}
        for attribute, choices in declared.offered.items():
            key = f"{name}.{attribute}"
            if attribute not in schema:
                told(key, unknown("key", attribute, [*RESERVED, *schema]))
                continue
            for value in choices.values:
                fault = fault_of(schema[attribute], value)
                if fault:
                    told(key, f"{key} {fault}")
    for i, rule in enumerate(rules):
        for message in rule_faults(rule, modules):
            told(f"rules.{i}", f"rule '{rule}': {message}")


def rule_faults(rule: Rule, modules: Mapping[str, ModuleSpace]) -> list[str]:
    """What is wrong with a rule over these modules."""
    found = []
    for term in dict.fromkeys(terms_of(rule)):
        if term.module not in modules:
            known = unknown("module", term.module, modules)
            found.append(f"the space has no {known.removeprefix('unknown ')}")
            continue
        offered = modules[term.module].offered
        if term.attribute not in ("dim", "depth", *offered):
            known = unknown("attribute", term.attribute, ["dim", "depth", *offered])
            found.append(f"{term.module} declares no {known.removeprefix('unknown ')}")
    if found:
        return found
    parts = [rule.condition, rule.conclusion] if isinstance(rule, Implies) else [rule]
    for part in parts:
        if isinstance(part, Ordered) and part.term.attribute != "dim":
            values = modules[part.term.module].offered[part.term.attribute].values
            if not all(type(v) in (int, float) for v in values):
                found.append(f"{part.term} is no number, and has no order")
        elif isinstance(part, Comparison) and part.left.attribute == "dim":
            found += _dim_faults(part, modules[part.left.module])
        elif isinstance(part, Comparison) and part.left.attribute != "depth":
            found += _comparison_faults(part, part.left, modules)
    return found


def _comparison_faults(
    part: Comparison, term: Term, modules: Mapping[str, ModuleSpace]
) -> list[str]:
    values = modules[term.module].offered[term.attribute].values
    numbers = all(type(v) in (int, float) for v in values)
    kind = (int, float) if numbers else (type(part.right),)
    if not any(_alike(part.right, v) for v in values) or type(part.right) not in kind:
        told = ", ".join(map(str, values))
        return (
            [f"{term} is one of {told}; it is never {part.right}"]
            if not numbers
            else [f"{term} is a number, not {part.right}"]
        )
    if not numbers and part.op not in ("==", "!="):
        return [f"{term} is no number; compare it with == or !="]
    if numbers and part.op in ("==", "!=") and part.right not in values:
        return [f"{term} is one of {', '.join(map(str, values))}; it is never {part.right}"]
    return []


def _dim_faults(part: Comparison, declared: ModuleSpace) -> list[str]:
    """A dim that is asked to be, or not to be, what no block offers."""
    if part.op not in ("==", "!=") or isinstance(part.right, Term):
        return []
    dims = sorted({0}.union(declared.dim, *declared.blocks.values()))
    if part.right in dims:
        return []
    told = ", ".join(map(str, dims)) if len(dims) <= LISTED else f"{len(dims)} values"
    return [f"{part.left} is one of {told}; it is never {part.right}"]


def _alike(right: object, value: Value) -> bool:
    if type(value) in (int, float):
        return type(right) in (int, float)
    return type(right) is type(value) and right == value
