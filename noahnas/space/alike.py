"""Choices that neither price nor rule tells apart: they are counted together."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from noahnas.space.genes import Part
from noahnas.space.rules import Comparison, Ordered, Term
from noahnas.space.schema import Value
from noahnas.space.work import UncountableError, Work

Price = Callable[[int, Mapping[str, Value]], int]  # of a dim > 0 with attributes, in one block
Classes = list[list[Value]]
MAX_PRICES = 5_000  # combinations of dims and attributes that are all looked at
SAMPLED = 500  # of more combinations than that
PRICE_WORK = 20  # what a price costs, in sums
RULE_WORK = 5  # what a comparison costs, in sums


def alike(
    part: Part,
    price: Price | None,
    mentioned: frozenset[str] = frozenset(),
    work: Work | None = None,
) -> list[Classes]:
    """For each attribute its choices, those together that no price and no rule tells apart.

    Where there are too many combinations to look at all, attributes are varied one at a time, and
    some combinations are compared.

    Raises:
        UncountableError: if that takes too long, or prices do not go by such classes.
    """
    work = work or Work()
    names = list(part.attributes)
    dims = sorted({d for row in part.choices for d in row if d})
    if price is None:
        return [
            [[v] for v in choices] if name in mentioned else [list(choices)]
            for name, choices in part.attributes.items()
        ]
    if not names or not dims:
        return [[[v] for v in choices] for choices in part.attributes.values()]
    total = len(dims)
    for choices in part.attributes.values():
        total *= len(choices)
    few = total <= MAX_PRICES
    probes = dims if few else sorted({dims[0], dims[-1]})
    found: dict[str, Classes] = {}
    for name, choices in part.attributes.items():
        others = [other for other in names if other != name]
        if name in mentioned:
            found[name] = [[value] for value in choices]
            continue
        rest = list(
            itertools.product(*(part.attributes[o] for o in others))
            if few
            else _one_by_one([part.attributes[o] for o in others], [found.get(o) for o in others])
        )
        classes: dict[tuple[int, ...], list[Value]] = {}
        for value in choices:
            work.spend(PRICE_WORK * len(rest) * len(probes))
            key = tuple(
                price(dim, dict(zip(others, values, strict=True)) | {name: value})
                for dim in probes
                for values in rest
            )
            classes.setdefault(key, []).append(value)
        found[name] = list(classes.values())
    if not few:
        work.spend(2 * PRICE_WORK * SAMPLED)
        _compare(dims, found, price)
    return list(found.values())


def dims_alike(
    dims: Sequence[int],
    rules: Sequence[Comparison | Ordered],
    module: str,
    apart: bool,
    work: Work,
) -> list[tuple[int, ...]]:
    """The dims of a block in classes that no rule tells apart; 0, always among them, is alone.

    Args:
        dims: that the block may have.
        rules: what is said of the module's dims.
        module: its name.
        apart: whether each dim is a class of its own, for its price.
        work: what this may cost.

    Raises:
        UncountableError: if it takes too long.
    """
    term = Term(module, "dim")
    work.spend(len(dims) * (1 + RULE_WORK * len(rules)))
    apart = apart or any(isinstance(r, Ordered) or isinstance(r.right, Term) for r in rules)
    found: dict[object, list[int]] = {}
    for dim in sorted({*dims} - {0}):
        key: object = dim
        if not apart:
            key = tuple(r.holds({term: dim}) for r in rules if isinstance(r, Comparison))
        found.setdefault(key, []).append(dim)
    return [(0,), *map(tuple, found.values())]


def _one_by_one(
    rows: Sequence[Sequence[Value]], known: Sequence[Classes | None]
) -> Iterator[tuple[Value, ...]]:
    """The first value of each row, the last of each, and the first but for one of known classes."""
    first = tuple(row[0] for row in rows)
    found = dict.fromkeys([first, tuple(row[-1] for row in rows)])
    for i, (row, classes) in enumerate(zip(rows, known, strict=True)):
        others = [c[0] for c in classes] if classes else [row[0], row[len(row) // 2], row[-1]]
        found |= dict.fromkeys((*first[:i], value, *first[i + 1 :]) for value in others)
    yield from found


def _compare(dims: Sequence[int], found: Mapping[str, Classes], price: Price) -> None:
    """Raise UncountableError if a combination costs something else than its classes' first."""
    rng = random.Random(0)
    for _ in range(SAMPLED):
        dim = rng.choice(dims)
        picked = {name: rng.choice(classes) for name, classes in found.items()}
        any_ = {name: rng.choice(values) for name, values in picked.items()}
        if price(dim, any_) != price(dim, {name: values[0] for name, values in picked.items()}):
            raise UncountableError
