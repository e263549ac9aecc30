"""Genes in Optuna: each with a choice is a distribution of ordinal indices, for every strategy."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, IntDistribution

from noahnas.space.arch import Arch
from noahnas.space.space import Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """A distribution over the indices of each gene's choices; genes without a choice are left out.

    Indices, not values: so any gene is an integer, and a joint model of all of them stays whole.
    """
    return {
        gene.name: IntDistribution(0, len(gene.choices) - 1)
        for gene in space.genes
        if len(gene.choices) > 1
    }


def indices(space: Space, arch: Arch) -> dict[str, int]:
    """The index of an arch's choice at each gene that has a distribution.

    Raises:
        ArchError: if the arch is not in the space.
    """
    pairs = zip(space.genes, space.encode(arch), strict=True)
    return {gene.name: index for gene, index in pairs if len(gene.choices) > 1}
