"""Architectures seen from one another: rules they break, neighbours, distance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from noahnas.errors import ArchError
from noahnas.space.arch import Arch
from noahnas.space.rules import Rule, Term, breaks
from noahnas.space.schema import Value

if TYPE_CHECKING:
    from noahnas.space.encoded import Encoded
    from noahnas.space.space import Space


def violations(space: Encoded, arch: Arch) -> int:
    """In how many places an arch breaks the rules."""
    return sum(breaks_of(space, arch, rule) for rule in space.bound_rules)


def breaks_of(space: Encoded, arch: Arch, rule: Rule) -> int:
    """In how many places an arch breaks one bound rule."""
    values = {
        name: space.parts[name].filled(arch[name] if name in arch else {"dim": (0,) * space.blocks})
        for name in space.parts
    }

    def value(term: Term, block: int) -> Value:
        if term.attribute == "depth":
            return sum(bool(dim) for dim in values[term.module]["dim"])
        return values[term.module][term.attribute][block]

    present = [[bool(dim) for dim in row["dim"]] for row in values.values()]
    return breaks(rule, space.blocks, value, present)


def neighbours(space: Space, arch: Arch) -> list[Arch]:
    """The archs of the space one step of one gene away, in the order of genes.

    A gene takes the next smaller or larger choice, or any other one where choices are words. A
    depth takes a step where the dims between are the smallest, so that the way back is a step too.
    """
    space.encode(arch)  # raises if it is not in the space
    arch = space.canonical(arch)
    found: dict[Arch, None] = {}
    values = space.values(arch)
    parts = {
        name: part.decode(part.encodings(values[name])[0]) for name, part in space.parts.items()
    }
    for name, part in space.parts.items():
        for vector in part.encodings(values[name]):
            for changed in _steps(space, name, vector):
                other = Arch.trusted(parts | {name: part.decode(changed)})
                if other != arch and not violations(space, other):
                    found[other] = None
    return list(found)


def _steps(space: Space, name: str, vector: list[int]) -> Iterator[list[int]]:
    part = space.parts[name]
    before = part.active(vector)
    for i, gene in enumerate(part.genes):
        if not before[i]:
            continue
        near = (vector[i] - 1, vector[i] + 1) if gene.ordered else range(len(gene.choices))
        for index in near:
            if not 0 <= index < len(gene.choices) or index == vector[i]:
                continue
            changed = [*vector[:i], index, *vector[i + 1 :]]
            after = part.active(changed)
            dropped = [j for j, on in enumerate(before) if on and not after[j] and vector[j]]
            if any(part.genes[j].attribute == "dim" for j in dropped):
                continue
            for j in dropped:
                changed[j] = 0
            yield from _opened(space, name, changed, before, after)


def _opened(
    space: Space, name: str, vector: list[int], before: list[bool], after: list[bool]
) -> Iterator[list[int]]:
    """The vector with every value of the attributes whose module a step has just brought."""
    part = space.parts[name]
    new = [
        j
        for j, gene in enumerate(part.genes)
        if after[j] and not before[j] and gene.attribute not in ("dim", "depth")
    ]
    vectors = [vector]
    for j in new:
        vectors = [
            [*v[:j], index, *v[j + 1 :]]
            for v in vectors
            for index in range(len(part.genes[j].choices))
        ]
    yield from vectors


def distance(space: Space, first: Arch, second: Arch) -> int:
    """The sum over modules and blocks of steps between dims and of attributes that differ.

    Steps count places among the block's dims, 0 included: from 1 to 10 in {1, 5, 10} are two.
    """
    for arch in (first, second):
        reason = space.misfit(arch)
        if reason:
            raise ArchError(reason)
    a, b = (space.values(space.canonical(arch)) for arch in (first, second))
    total = 0
    for name, part in space.parts.items():
        one, two = part.filled(a[name]), part.filled(b[name])
        for block in range(space.blocks):
            ranks = sorted({0, *part.choices[block]})
            total += abs(ranks.index(one["dim"][block]) - ranks.index(two["dim"][block]))  # type: ignore[arg-type]
            total += sum(one[key][block] != two[key][block] for key in one if key != "dim")
    return total
