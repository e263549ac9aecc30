"""Search spaces as rich tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from noahnas.space import Arch, Space

SHADES = " ░▒▓█"  # how many of the depths reach a block: none to all


def spaces_table(rows: Sequence[tuple[str, str, str, str]], backbone: str) -> Table:
    """Shipped spaces: name, size on a backbone, budget, description."""
    table = Table(caption=f"sizes at {backbone}; the budget is not applied")
    for heading in ("space", "architectures", "budget", "description"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "space")
    for row in rows:
        table.add_row(*row)
    return table


def checked_table(file: str, found: Mapping[str, Any]) -> Table:
    """A space file without faults: its size and what its architectures cost."""
    table = Table(title=f"{file}: no faults", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("bound to", f"{found['blocks']} blocks of width {found['width']}")
    size = f"{found['size']} distinct" if found["size"] is not None else "not counted"
    table.add_row("architectures", f"{size}, over {found['genes']} genes")
    for which in ("cheapest", "dearest"):
        if found[which] is None:
            table.add_row(which, "not found: it would take too long")
            continue
        arch = Arch.from_dict(found[f"{which}_arch"])
        table.add_row(which, f"{found[which]:,} prompt parameters\n{arch_told(arch)}")
    table.add_row("budget", found["budget_told"])
    if found["budget"] or found["reason"]:
        told = f"{_share_of_all(found)}; {_share_of_paper(found)}"
        if found["feasible"] is None:
            table.add_row("feasible", f"about {told}")
            table.add_row("not counted", f"{found['reason']}; draws are made by rejection")
        else:
            table.add_row("feasible", f"{found['feasible']}; {told}")
    for warning in found["warnings"]:
        table.add_row("warning", warning, style="yellow")
    return table


def _share_of_all(found: Mapping[str, Any]) -> str:
    share, draws = found["feasible_share_of_exact_prior"], found["draws_of_exact_prior"]
    if share is None:
        return "an unknown share of all (no draw keeps to the rules)"
    told = f"{share:.3g} of all" if 0 < share < 0.001 else f"{share:.1%} of all"
    if found["feasible"] and 0.999 < share < 1:
        told = f"all but {found['size'] - found['feasible']}"
    return told if draws is None else f"{told} ({draws} draws)"


def _share_of_paper(found: Mapping[str, Any]) -> str:
    share, draws = found["feasible_share_of_paper_prior"], found["draws_of_paper_prior"]
    if share is None:
        return "an unknown share of the paper prior"
    return f"{share:.1%} of the paper prior ({draws} draws)"


def budget_line(space: Space) -> str:
    """A bound space's budget in a line."""
    budget = space.budget
    if not budget or not budget.limits:
        return "none"
    low, high = space.limits
    parts = []
    if budget.params is not None:
        stated = f" ({budget.params})" if budget.params.unit else ""  # type: ignore[union-attr]
        parts.append(f"at most {high:,} parameters{stated}")
    if budget.least is not None:
        stated = f" ({budget.least})" if budget.least.unit else ""  # type: ignore[union-attr]
        parts.append(f"at least {low:,} parameters{stated}")
    if budget.head:
        parts.append("head included")
    parts += [f"{what} {amount}" for what, amount in budget.limits.items() if what in TIMES]
    return " · ".join(parts)


TIMES = ("flops", "latency")


def arch_told(arch: Arch) -> str:
    """An architecture, a line for each module."""
    if not arch.modules:
        return "nothing but the head"
    lines = []
    for name in arch.modules:
        part = arch[name]
        lines.append(f"{name} {' '.join(map(str, part['dim']))}")
        for key in part:
            if key != "dim":
                pairs = zip(part["dim"], part[key], strict=True)
                lines.append(f"  {key} {' '.join(_word(v) if d else '·' for d, v in pairs)}")
    return "\n".join(lines)


def picture(space: Space) -> Table:
    """Blocks down, modules across: what each block may have, and how many depths reach it."""
    table = Table()
    table.add_column("block", justify="right")
    for name in space.parts:
        table.add_column(name, no_wrap=True)
    for block in range(space.blocks):
        table.add_row(str(block), *(_cell(space, name, block) for name in space.parts))
    return table


def _cell(space: Space, name: str, block: int) -> str:
    part = space.parts[name]
    reach = sum(block in part.reach(depth) for depth in part.depths)
    if not part.choices[block] or not reach:
        return ""
    shade = SHADES[-(-reach * (len(SHADES) - 1) // len(part.depths))]
    group = next((g for g in part.groups if block in g and len(g) > 1), ())
    bracket = "┐" if group[:1] == (block,) else "┘" if group[-1:] == (block,) else "│"
    return f"{shade} {_listed(part.choices[block])}" + (f" {bracket}" if group else "")


def _listed(values: Sequence[Any]) -> str:
    told = " ".join(map(_word, values))
    return told if len(values) <= 8 else f"{values[0]} … {values[-1]} ({len(values)})"


def _word(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def notes(space: Space) -> list[str]:
    """What the picture leaves out: depths, attributes, rules, the budget."""
    lines = ["█ every depth reaches the block, ▓ ▒ ░ fewer; ┐ │ ┘ one gene for these blocks"]
    size = space.counted_size
    told = "not counted, the rules are too tangled" if size is None else str(size)
    lines.append(f"architectures: {told}")
    for name, part in space.parts.items():
        end = " from the last" if part.from_last else ""
        lines.append(f"{name}.depth: {_listed(part.depths)} of {space.blocks} blocks{end}")
        for key, values in part.attributes.items():
            groups = part.attribute_groups[key]
            lines.append(f"{name}.{key}: {_listed(values)}; genes: {len(groups)}")
    lines += [f"rule: {rule}" for rule in space.rules]
    return [*lines, f"budget: {budget_line(space)}"]


def diff_table(first: str, second: str, found: Mapping[str, tuple[Any, Any]]) -> Table:
    """What two spaces declare differently."""
    table = Table()
    for heading in ("", first, second):
        table.add_column(heading, overflow="fold")
    for key, pair in found.items():
        table.add_row(key, *("—" if value is None else _told(value) for value in pair))
    return table


def _told(value: Any) -> str:
    return _listed(value) if isinstance(value, list) else str(value)
