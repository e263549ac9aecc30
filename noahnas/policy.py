"""Training policies: which architectures the supernet is trained on at each step, and on what.

A policy is a few words joined by `+`, in any order: where architectures come from (`paper`,
`feasible` or `fair`; without one, `paper`), how training starts (`warm`), and how many share a step
(`sandwich` or `mixed`; without one, a single architecture). So `warm+mixed+feasible` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from noahnas.errors import NoahnasError, unknown
from noahnas.files import digest
from noahnas.space import Arch, Space, format_space

WARM_SHARE = 0.25  # of the steps, in which `warm` trains the largest arch alone
WARM_EVERY = 3  # after that, the largest arch comes back every so many steps
SANDWICH = 2  # random archs between the largest and the smallest one
GROUPS = 4  # of images in a batch, each with an arch of its own, under `mixed`


@dataclass(frozen=True)
class Lesson:
    """One architecture of a training step: which images it sees, and what it learns from."""

    arch: Arch
    group: int = 0  # of the batch's images, which are dealt to groups in turn
    groups: int = 1
    distilled: bool = False  # learns the outputs of the step's first lesson, not the labels


@dataclass(frozen=True)
class Plan:
    """The lessons of each step, under a name that tells apart all that decides them."""

    name: str
    lessons: Callable[[np.random.Generator, int, int], Sequence[Lesson]]

    def __call__(self, rng: np.random.Generator, step: int, steps: int) -> Sequence[Lesson]:
        """The lessons of a step, of so many."""
        return self.lessons(rng, step, steps)


Source = Callable[[np.random.Generator, int], Arch]  # generator, number of the draw


def paper(space: Space) -> Source:
    """An arch of the paper prior.

    Source: NOAH, arXiv:2206.04673.
    """
    return lambda rng, _number: space.draw(rng)


def feasible(space: Space) -> Source:
    """An arch of the paper prior that meets the budget."""
    return lambda rng, _number: space.sample(rng, prior="paper")[0]


def fair(space: Space) -> Source:
    """Every choice of every gene equally often: each gene goes through its choices in random order.

    What breaks a rule of the space gives way to an arch of the paper prior.

    Source: FairNAS, arXiv:1907.01845, whose blocks are our genes.
    """

    def draw(rng: np.random.Generator, number: int) -> Arch:
        vector = []
        for index, gene in enumerate(space.genes):
            count = len(gene.choices)
            # A round of `count` draws has an order of its own, the same after a resumption.
            order = np.random.default_rng([index, number // count]).permutation(count)
            vector.append(int(order[number % count]))
        arch = space.decode(vector)
        return arch if space.contains(arch) else space.draw(rng)

    return draw


SOURCES: dict[str, Callable[[Space], Source]] = {"paper": paper, "feasible": feasible, "fair": fair}
STARTS, SHAPES = ("warm",), ("sandwich", "mixed")
POLICIES = (*SOURCES, *STARTS, *SHAPES)


def policy(name: str, space: Space) -> Plan:
    """A policy by name, for a space.

    - `warm`: the largest arch alone for a quarter of the steps; after that it takes the place of
      the first drawn one in every third step. Shared weights learn sooner when all of them are
      trained together first.
    - `sandwich`: in each step the largest arch learns the labels, the smallest and two drawn ones
      its outputs (arXiv:1903.05134, arXiv:2003.11142). A step costs four.
    - `mixed`: the images of a batch are dealt to four groups, each with a drawn arch of its own. A
      step costs one.

    Raises:
        NoahnasError: if a word is unknown, or two of one kind are named.
    """
    source_name, warm, shape = _words(name)
    source = SOURCES[source_name](space)

    def lessons(rng: np.random.Generator, step: int, steps: int) -> Sequence[Lesson]:
        largest = space.largest
        if warm and step < WARM_SHARE * steps:
            return [Lesson(largest)]
        if shape == "sandwich":
            drawn = [source(rng, step * SANDWICH + i) for i in range(SANDWICH)]
            rest = [Lesson(arch, distilled=True) for arch in (space.cheapest, *drawn)]
            return [Lesson(largest), *rest]
        count = GROUPS if shape == "mixed" else 1
        archs = [source(rng, step * count + i) for i in range(count)]
        if warm and step % WARM_EVERY == 0:
            archs[0] = largest
        return [Lesson(arch, group, count) for group, arch in enumerate(archs)]

    return Plan(f"{name} of the space {digest(format_space(space).encode())[:16]}", lessons)


def _words(name: str) -> tuple[str, bool, str]:
    """Source, whether it starts warm, and shape."""
    words = [word.strip() for word in name.split("+")]
    for word in words:
        if word not in POLICIES:
            raise NoahnasError(unknown("policy", word, POLICIES))
    if len(set(words)) < len(words):
        raise NoahnasError(f"the policy '{name}' names a word twice")
    sources = [word for word in words if word in SOURCES]
    shapes = [word for word in words if word in SHAPES]
    for several in (sources, shapes):
        if len(several) > 1:
            raise NoahnasError(f"the policy '{name}' names {' and '.join(several)}; choose one")
    return sources[0] if sources else "paper", "warm" in words, shapes[0] if shapes else ""


def policy_fault(name: str) -> str | None:
    """Why a name is no policy; None if it is one."""
    try:
        _words(name)
    except NoahnasError as e:
        return str(e)
    return None


def only(arch: Arch) -> Plan:
    """The same architecture in every step, as retraining has it."""
    return Plan(f"the arch {arch.digest}", lambda _rng, _step, _steps: [Lesson(arch)])
