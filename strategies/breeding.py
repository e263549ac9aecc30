"""Mutation and crossover of architectures: by single genes and blocks, and as NOAH's code does.

A child may exceed the budget or break a rule: `Strategy.fresh` leaves such out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noahnas.space import Arch, Space

Vector = NDArray[np.int64]


def filled(space: Space, arch: Arch, rng: np.random.Generator) -> Vector:
    """The arch's genes, (genes,); those that are inactive drawn anew: a deeper child needs them."""
    vector = space.vector(arch)
    active = np.array(space.active(vector), dtype=bool)
    return np.where(active, vector, rng.integers(space.counts))


def mutant(space: Space, arch: Arch, rng: np.random.Generator, m: float, s: float) -> Arch:
    """A child in which genes are drawn anew: those of whole modules at rate `s`, others at `m`."""
    rates = np.array([s if gene.block is None else m for gene in space.genes])
    hit = rng.random(len(rates)) < rates
    return _arch(space, np.where(hit, rng.integers(space.counts), filled(space, arch, rng)))


def cross(space: Space, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
    """A child that takes each block, and each gene of a whole module, from one of two parents."""
    genes = space.genes
    of_block = rng.random(space.blocks) < 0.5
    of_whole = rng.random(len(genes)) < 0.5
    mine = [of_whole[i] if g.block is None else of_block[g.block] for i, g in enumerate(genes)]
    return _arch(space, np.where(mine, filled(space, first, rng), filled(space, second, rng)))


def depth_mutant(space: Space, arch: Arch, rng: np.random.Generator, s: float) -> Arch:
    """A child whose depths alone are drawn anew, at rate `s`; dims that stay are kept.

    Source: NOAH's code, whose mutation does so.
    """
    depths = np.array([gene.attribute == "depth" for gene in space.genes])
    hit = depths & (rng.random(len(depths)) < s)
    return _arch(space, np.where(hit, rng.integers(space.counts), filled(space, arch, rng)))


def module_cross(space: Space, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
    """A child that takes each module whole from one of two parents.

    Source: NOAH's code, whose crossover does so.
    """
    mine = {name for name in space.parts if rng.random() < 0.5}
    parents = {name: first if name in mine else second for name in space.parts}
    return Arch.trusted({n: parent[n] for n, parent in parents.items() if n in parent})


def _arch(space: Space, vector: Vector) -> Arch:
    return space.decode(vector.tolist())
