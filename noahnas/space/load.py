"""Space files: YAML in, Space out, with every fault's line and column."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from noahnas.errors import Fault, SpaceError, unknown
from noahnas.registry import installed
from noahnas.space.declaration import Budget, ModuleSpace
from noahnas.space.document import Checker, Node, parse, read, write_scalar
from noahnas.space.space import Space


def shipped() -> list[str]:
    """Names of the spaces that come with noahnas."""
    folder = files("noahnas.search_spaces")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_space(name_or_path: str | Path) -> Space:
    """A shipped space by name, or a space file by path.

    A word without a slash or a `.yaml` ending is a name.

    Raises:
        SpaceError: with every fault's line and column.
    """
    given = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in given or given.endswith((".yaml", ".yml")):
        return parse_space(read(Path(name_or_path), SpaceError), given)
    if given not in shipped():
        hint = "; a file is named by its path, such as ./my-space.yaml"
        raise SpaceError(given, [Fault(0, 0, unknown("space", given, shipped()) + hint)])
    text = files("noahnas.search_spaces").joinpath(f"{given}.yaml").read_text(encoding="utf-8")
    return parse_space(text, f"{given}.yaml")


def parse_space(text: str, source: str = "space") -> Space:
    """A Space from the text of a space file.

    Raises:
        SpaceError: with every fault's line and column.
    """
    root = parse(text, source, SpaceError)
    check = Checker()
    top = check.mapping(root, "a space", ("name", "description", "modules", "budget"))
    for key in ("name", "modules"):
        if key not in top and isinstance(root.value, dict):
            check.fault(root, f"'{key}' is missing")
    name = check.text(top["name"], "name") if "name" in top else ""
    description = check.text(top["description"], "description") if "description" in top else ""
    modules = _modules(check, top["modules"]) if "modules" in top else {}
    budget = _budget(check, top["budget"]) if "budget" in top else None
    if check.faults:
        raise SpaceError(source, check.faults)
    return Space(name, modules, description, budget)


def _modules(check: Checker, node: Node) -> dict[str, ModuleSpace]:
    known = list(installed("noahnas.modules"))
    entries = check.mapping(node, "modules", known, "module")
    if node.value == {}:
        check.fault(node, f"modules must name at least one of {', '.join(known)}")
    modules = {}
    for name, part in entries.items():
        keys = check.mapping(part, name, ("dim", "depth"))
        if "dim" not in keys and isinstance(part.value, dict):
            check.fault(part, f"{name}: 'dim' is missing, for example dim: [1, 5, 10]")
        dim = check.integers(keys["dim"], f"{name}.dim") if "dim" in keys else ()
        depth = check.integers(keys["depth"], f"{name}.depth") if "depth" in keys else ()
        if dim:
            modules[name] = ModuleSpace(dim, depth)
    return modules


def _budget(check: Checker, node: Node) -> Budget | None:
    keys = check.mapping(node, "budget", ("params",))
    if "params" not in keys:
        if isinstance(node.value, dict):
            check.fault(node, "budget: 'params' is missing, for example params: 0.64M")
        return None
    return Budget(check.count(keys["params"], "budget.params"))


def format_space(space: Space) -> str:
    """The space file of a Space; `parse_space` reads it back to an equal one."""
    lines = [f"name: {write_scalar(space.name)}"]
    if space.description:
        lines.append(f"description: {write_scalar(space.description)}")
    lines.append("modules:")
    for name, part in space.to_dict()["modules"].items():
        lines.append(f"  {name}:")
        lines += [f"    {key}: {json.dumps(values)}" for key, values in part.items()]
    if space.budget:
        lines += ["budget:", f"  params: {space.budget.params}"]
    return "\n".join(lines) + "\n"
