"""Space files in: nodes of a document to what a space declares, with every fault's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from noahnas.errors import Fault, SpaceError
from noahnas.registry import installed
from noahnas.space.budget import Budget, flops_amount, latency_amount, params_amount
from noahnas.space.declaration import (
    MAX_CHOICES,
    MAX_DIM,
    TIES,
    Choices,
    Depth,
    ModuleSpace,
    fault_of,
    plain,
    read_depth,
    schema_of,
)
from noahnas.space.declared import RESERVED, rule_faults
from noahnas.space.document import Checker, Node, Place, describe
from noahnas.space.ranges import read_range
from noahnas.space.rules import Rule, parse_rule, terms_of
from noahnas.space.schema import Value
from noahnas.space.selectors import check_selector
from noahnas.space.space import Space

KEYS = ("name", "description", "extends", "modules", "budget", "rules")
MAX_RULES = 50


def read_space(root: Node, source: str, faults: list[Fault]) -> Space:
    """A Space from a document whose `extends` is resolved; `faults` are those found already.

    Raises:
        SpaceError: with every fault's line and column.
    """
    reader = _Reader(whole=not faults)
    reader.check.faults += faults
    top = reader.check.mapping(root, "a space", KEYS)
    for key in ("name", "modules"):
        if key not in top and isinstance(root.value, dict) and (reader.whole or key == "name"):
            reader.check.fault(root, f"'{key}' is missing")
    name = reader.text(top, "name")
    description = reader.text(top, "description")
    modules = reader.modules(top["modules"]) if "modules" in top else {}
    budget = reader.budget(top["budget"]) if "budget" in top else None
    rules = reader.rules(top["rules"], modules) if "rules" in top else []
    if reader.check.faults:
        raise SpaceError(source, reader.check.faults)
    return Space(name, modules, description, budget, rules, source=source, places=reader.places)


class _Reader:
    """Reads declarations out of nodes, and gathers faults and places.

    Args:
        whole: whether all of the document is there; if what it extends is not, nothing is missing.
    """

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.refused: set[str] = set()  # modules with faults
        self.check = Checker()
        self.places: dict[str, Place] = {}

    def put(self, key: str, node: Node) -> None:
        self.places[key] = (node.line, node.column, node.source)

    def text(self, top: Mapping[str, Node], key: str) -> str:
        if key not in top:
            return ""
        self.put(key, top[key])
        return self.check.text(top[key], key)

    # --- modules -----------------------------------------------------------------------------

    def modules(self, node: Node) -> dict[str, ModuleSpace]:
        known = list(installed("noahnas.modules"))
        self.put("modules", node)
        entries = self.check.mapping(node, "modules", known, "module")
        if node.value == {}:
            self.check.fault(node, f"modules must name at least one of {', '.join(known)}")
        found = {name: self._module(name, part) for name, part in entries.items()}
        self.refused = set(node.keys) - {name for name, part in found.items() if part}
        return {name: part for name, part in found.items() if part}

    def _module(self, name: str, node: Node) -> ModuleSpace | None:
        self.put(name, node)
        before = len(self.check.faults)
        given = node.value if isinstance(node.value, dict) else {}
        schema = schema_of(name) if set(given) - set(RESERVED) else {}
        keys = self.check.mapping(node, name, (*RESERVED, *schema))
        for key, value in keys.items():
            self.put(f"{name}.{key}", value)
        named = {"dim", "blocks"} & set(keys) or set(given) - set(keys)  # a slip of the pen is one
        if not named and self.whole and isinstance(node.value, dict):
            self.check.fault(node, f"{name}: 'dim' is missing, for example dim: [1, 5, 10]")
        dim = self._dims(keys["dim"], f"{name}.dim") if "dim" in keys else ()
        depth = self._depths(keys["depth"], f"{name}.depth") if "depth" in keys else ()
        blocks = self._blocks(keys["blocks"], f"{name}.blocks") if "blocks" in keys else {}
        start, tie = "first", "none"
        if "from" in keys:
            start = self._word(keys["from"], f"{name}.from", ("first", "last"))
        if "tie" in keys:
            tie = self._word(keys["tie"], f"{name}.tie", TIES)
        attributes = {}
        for key in schema:
            if key in keys:
                choices = self._attribute(keys[key], f"{name}.{key}")
                for choice, at in choices[0]:
                    fault = fault_of(schema[key], choice)
                    if fault:
                        self.check.fault(at, f"{name}.{key} {fault}")
                if len(self.check.faults) == before:
                    attributes[key] = Choices(tuple(v for v, _ in choices[0]), choices[1])
        if len(self.check.faults) > before:
            return None
        return ModuleSpace(dim, depth, start, tie, blocks, attributes)

    def _word(self, node: Node, what: str, known: tuple[str, ...]) -> str:
        if isinstance(node.value, str) and node.value in known:
            return node.value
        told = f"{what} must be one of {', '.join(known)}, not {describe(node)}"
        self.check.fault(node, told)
        return known[0]

    def _blocks(self, node: Node, what: str) -> dict[str, tuple[int, ...]]:
        found = {}
        if node.value == {}:
            self.check.fault(node, f"{what} must name at least one selector, such as 0-5 or last 3")
        for text, dims in self.check.mapping(node, what, known=None).items():
            try:
                check_selector(text)
            except ValueError as e:
                self.check.fault_at(node.keys[text], f"{what}: {e}")
            self.places[f"{what}.{text}"] = node.keys[text]
            found[text] = self._dims(dims, f"{what}.{text}")
        return found

    def _dims(self, node: Node, what: str) -> tuple[int, ...]:
        def read(item: Node) -> int:
            return self.check.integer(item, what, maximum=MAX_DIM)

        return tuple(int(v) for v, _ in self._listed(node, what, read))  # type: ignore[arg-type]

    def _depths(self, node: Node, what: str) -> tuple[Depth, ...]:
        def read(item: Node) -> Depth:
            if isinstance(item.value, str) and not item.value.strip("+-").isdigit():
                try:
                    return read_depth(item.value)
                except SpaceError:
                    message = (
                        f"{what} must be a count of blocks, a fraction such as 1/4, or all, "
                        f"not {describe(item)}"
                    )
                    self.check.fault(item, message)
                    return 0
            return self.check.integer(item, what, maximum=MAX_DIM)

        return tuple(v for v, _ in self._listed(node, what, read))  # type: ignore[misc]

    def _attribute(self, node: Node, what: str) -> tuple[list[tuple[Value, Node]], str]:
        tie = "all"
        if isinstance(node.value, dict) and "tie" in node.value:
            tie = self._word(node.value["tie"], f"{what}.tie", TIES)
            rest = {k: v for k, v in node.value.items() if k != "tie"}
            if "choices" in rest:
                self.check.mapping(node, what, ("choices", "tie"))
                node = rest["choices"]
            else:
                node = Node(node.line, node.column, rest, node.keys, node.source)
        elif isinstance(node.value, dict) and "choices" in node.value:
            self.check.mapping(node, what, ("choices", "tie"))
            node = node.value["choices"]

        def read(item: Node) -> Value:
            if isinstance(item.value, (list, dict)):
                self.check.fault(item, f"{what} must be plain values, not {describe(item)}")
                return None
            return plain(item.value)

        return self._listed(node, what, read), tie  # type: ignore[return-value]

    def _listed(
        self, node: Node, what: str, read: Callable[[Node], Value | Fraction]
    ) -> list[tuple[Value | Fraction, Node]]:
        """Distinct values of a list, a range, or one alone."""
        if isinstance(node.value, dict):
            values = read_range(self.check, node, what)
            items = [Node(node.line, node.column, v, source=node.source) for v in values]
            if not items:
                return []
        else:
            items = node.value if isinstance(node.value, list) else [node]
        if not items:
            self.check.fault(node, f"{what} must name at least one value")
        if len(items) > MAX_CHOICES:
            self.check.fault(node, f"{what} names more than {MAX_CHOICES} values")
            return []
        found: list[tuple[Value | Fraction, Node]] = []
        seen = set()
        for item in items:
            before = len(self.check.faults)
            value = read(item)
            if len(self.check.faults) > before:
                continue
            key = (isinstance(value, bool), value)
            if key in seen:
                self.check.fault(item, f"{what} names {value} twice")
            seen.add(key)
            found.append((value, item))
        return found

    # --- budget and rules --------------------------------------------------------------------

    def budget(self, node: Node) -> Budget | None:
        self.put("budget", node)
        keys = self.check.mapping(node, "budget", ("params", "flops", "latency"))
        if node.value == {}:
            self.check.fault(
                node, "budget: 'params', 'flops' or 'latency' is missing, for example params: 0.64M"
            )
        given: dict[str, object] = {}
        for key, value in keys.items():
            self.put(f"budget.{key}", value)
        if "params" in keys:
            params = keys["params"]
            if isinstance(params.value, dict):
                parts = self.check.mapping(params, "budget.params", ("max", "min", "head"))
                if not {"max", "min"} & set(parts) and set(parts) == set(params.value):
                    self.check.fault(params, "budget.params needs max, min or both")
                for part, field in (("max", "params"), ("min", "least")):
                    if part in parts:
                        what = f"budget.params.{part}"
                        given[field] = self._amount(parts[part], what, params_amount)
                if "head" in parts:
                    given["head"] = parts["head"].value
                    if not isinstance(parts["head"].value, bool):
                        told = f"must be true or false, not {describe(parts['head'])}"
                        self.check.fault(parts["head"], f"budget.params.head {told}")
            else:
                given["params"] = self._amount(params, "budget.params", params_amount)
        if "flops" in keys:
            given["flops"] = self._amount(keys["flops"], "budget.flops", flops_amount)
        if "latency" in keys:
            given["latency"] = self._amount(keys["latency"], "budget.latency", latency_amount)
        return None if self.check.faults else Budget(**given)  # type: ignore[arg-type]

    def _amount(self, node: Node, what: str, read: Callable[..., object]) -> object:
        if type(node.value) not in (int, str):
            example = {"flops": "1.05x", "latency": "20ms"}.get(
                what.rpartition(".")[2], "640000 or 0.64M"
            )
            kind = "a count" if "params" in what else "an amount"
            self.check.fault(node, f"{what} must be {kind} such as {example}, not {describe(node)}")
            return None
        try:
            return read(node.value)
        except ValueError as e:
            self.check.fault(node, f"{what}: {e}")
            return None

    def rules(self, node: Node, modules: Mapping[str, ModuleSpace]) -> list[Rule]:
        self.put("rules", node)
        if not isinstance(node.value, list):
            self.check.fault(node, f"rules must be a list of rules, not {describe(node)}")
            return []
        if not node.value or len(node.value) > MAX_RULES:
            self.check.fault(node, f"rules must hold 1 to {MAX_RULES} rules")
            return []
        found: list[Rule] = []
        for i, item in enumerate(node.value):
            self.put(f"rules.{i}", item)
            try:
                rule = parse_rule(self.check.text(item, "a rule")) if item.value else None
            except ValueError as e:
                if isinstance(item.value, str):
                    self.check.fault(item, str(e))
                continue
            if rule is None:
                self.check.fault(item, f"a rule must be text, not {describe(item)}")
            elif rule in found:
                self.check.fault(item, f"rule '{rule}' stands twice")
            else:
                found.append(rule)
                if not self.refused & {term.module for term in terms_of(rule)}:
                    for message in rule_faults(rule, modules):
                        self.check.fault(item, f"rule '{rule}': {message}")
        return found
