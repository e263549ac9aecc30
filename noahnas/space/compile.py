"""From what a space declares of a module to its genes over the blocks of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

from noahnas.space.declaration import ModuleSpace, schema_of
from noahnas.space.declared import Told
from noahnas.space.genes import Part, span
from noahnas.space.rules import count_of
from noahnas.space.selectors import select, tied


def compile_part(name: str, declared: ModuleSpace, blocks: int, told: Told) -> Part | None:
    """A module's declaration over so many blocks; tells what does not fit, and then gives None."""
    faults: list[tuple[str, str]] = []

    def fault(key: str, message: str) -> None:
        faults.append((key, message))

    depths = _depths(name, declared, blocks, fault)
    choices = _choices(name, declared, blocks, fault)
    deepest = max(depths)
    reached = range(blocks - deepest, blocks) if declared.start == "last" else range(deepest)
    offered = [block for block in reached if choices[block]]
    groups = _groups(f"{name}.tie", declared.tie, blocks, offered, fault)
    for group in groups:
        if len({choices[block] for block in group}) > 1:
            fault(f"{name}.tie", f"blocks {span(group)} of {name} are tied but offer other dims")
    attributes, attribute_groups, defaults = {}, {}, {}
    if declared.offered:
        for attribute, schema in schema_of(name).items():
            if attribute in declared.offered:
                values = declared.offered[attribute].values
                known = list(schema.choices)
                attributes[attribute] = (
                    tuple(sorted(values, key=lambda v: known.index(v) if v in known else -1))
                    if known
                    else values
                )
                tie = declared.offered[attribute].tie
                there = [block for block in offered if choices[block] != (0,)]
                key = f"{name}.{attribute}"
                attribute_groups[attribute] = tuple(_groups(key, tie, blocks, there, fault))
                defaults[attribute] = schema.default
    for key, message in faults:
        told(key, message)
    if faults:
        return None
    start = declared.start == "last"
    return Part(
        name,
        blocks,
        depths,
        start,
        tuple(choices),
        tuple(groups),
        attributes,
        attribute_groups,
        defaults,
    )


def _depths(name: str, declared: ModuleSpace, blocks: int, fault: Told) -> tuple[int, ...]:
    found: list[int] = []
    beyond: list[int] = []
    for depth in declared.depth or ("all",):
        try:
            count = count_of(depth, blocks)
        except ValueError as e:
            fault(f"{name}.depth", f"{name}.depth: {e}")
            continue
        if count > blocks:
            beyond.append(count)
        elif count in found:
            fault(f"{name}.depth", f"{name}.depth names {count} twice: {depth} of {blocks} blocks")
        else:
            found.append(count)
    if beyond:
        message = (
            f"{name}.depth {max(beyond)} exceeds the backbone's {blocks} blocks; "
            "choose a space whose depths fit it"
        )
        fault(f"{name}.depth", message)
    return tuple(sorted(found)) or (0,)


def _choices(name: str, declared: ModuleSpace, blocks: int, fault: Told) -> list[tuple[int, ...]]:
    chosen: dict[int, str] = {}
    found = [tuple(declared.dim)] * blocks
    for text, dims in declared.blocks.items():
        key = f"{name}.blocks.{text}"
        try:
            selected = select(text, blocks)
        except ValueError as e:
            fault(key, f"{name}.blocks: {e}")
            continue
        twice = [block for block in selected if block in chosen]
        if twice:
            fault(
                key,
                f"{name}.blocks: '{text}' and '{chosen[twice[0]]}' both select block {twice[0]}",
            )
        for block in selected:
            chosen[block] = text
            found[block] = tuple(dims)
    return found


def _groups(
    key: str, tie: str, blocks: int, offered: Sequence[int], fault: Told
) -> list[tuple[int, ...]]:
    try:
        groups = tied(tie, blocks)
    except ValueError as e:
        fault(key, f"{key}: {e}")
        return []
    there = set(offered)
    kept = (tuple(block for block in group if block in there) for group in groups)
    return [group for group in kept if group]
