"""Genes: ordinal choices over the blocks, and how a module's values are encoded in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from noahnas.space.schema import Value

Values = Mapping[str, Sequence[Value]]  # attribute → its value in each block


@dataclass(frozen=True)
class Gene:
    """One ordinal choice; it counts only where its module is (`Space.active`)."""

    name: str  # "vpt.depth", "vpt.dim.3", "vpt.dim.2-3", "lora.targets"
    choices: tuple[Value, ...]  # ascending, or in the order of the module's schema
    module: str = ""
    attribute: str = "depth"
    blocks: tuple[int, ...] = ()  # that share it; () for a depth
    whole: bool = True  # one gene for the whole module, as a depth is

    @property
    def block(self) -> int | None:
        """The first block that shares it; None if the whole module does."""
        return None if self.whole else self.blocks[0]

    @property
    def ordered(self) -> bool:
        """Whether neighbours among the choices are nearer than others: numbers, not words."""
        return not any(isinstance(choice, str) for choice in self.choices)


@dataclass(frozen=True)
class Part:
    """One module of a space on a backbone: its genes, and what dims each block may have."""

    name: str
    blocks: int
    depths: tuple[int, ...]  # ascending
    from_last: bool
    choices: tuple[tuple[int, ...], ...]  # per block; () = never there
    groups: tuple[tuple[int, ...], ...]  # of blocks that share a dim
    attributes: Mapping[str, tuple[Value, ...]]  # choices
    attribute_groups: Mapping[str, tuple[tuple[int, ...], ...]]
    defaults: Mapping[str, Value]

    def reach(self, depth: int) -> range:
        """The blocks that a depth reaches."""
        return range(self.blocks - depth, self.blocks) if self.from_last else range(depth)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Its depth, its dims block by block, its attributes."""
        found = [Gene(f"{self.name}.depth", self.depths, self.name)]
        for group in self.groups:
            found.append(self._gene("dim", self.choices[group[0]], group, len(self.groups) == 1))
        for name, choices in self.attributes.items():
            groups = self.attribute_groups[name]
            found += [self._gene(name, choices, group, len(groups) == 1) for group in groups]
        return tuple(found)

    def _gene(
        self, attribute: str, choices: tuple[Value, ...], blocks: tuple[int, ...], whole: bool
    ) -> Gene:
        whole = whole and len(blocks) > 1
        span = f".{blocks[0]}" + (f"-{blocks[-1]}" if len(blocks) > 1 else "")
        name = f"{self.name}.{attribute}" + ("" if whole else span)
        return Gene(name, choices, self.name, attribute, blocks, whole)

    @cached_property
    def _dim_genes(self) -> list[int]:
        """For each block the gene of its dim; 0 (the depth) where it has none."""
        found = [0] * self.blocks
        for i, group in enumerate(self.groups, start=1):
            for block in group:
                found[block] = i
        return found

    def decode(self, indices: Sequence[int]) -> dict[str, tuple[Value, ...]]:
        """Dims and attributes in canonical form: no default, and nothing of what is absent."""
        values = [gene.choices[i] for gene, i in zip(self.genes, indices, strict=True)]
        reached = self.reach(int(values[0] or 0))
        dims: list[int] = [0] * self.blocks
        genes = self._dim_genes[reached.start : reached.stop]
        dims[reached.start : reached.stop] = [values[i] if i else 0 for i in genes]  # type: ignore[misc]  # dims are numbers
        found: dict[str, tuple[Value, ...]] = {"dim": tuple(dims)}
        for gene, value in zip(self.genes, values, strict=True) if self.attributes else ():
            if gene.attribute not in ("dim", "depth"):
                row = list(found.get(gene.attribute, (None,) * self.blocks))
                for block in gene.blocks:
                    row[block] = value if dims[block] else None
                found[gene.attribute] = tuple(row)
        return {
            key: row
            for key, row in found.items()
            if key == "dim"
            or any(d and v != self.defaults[key] for d, v in zip(dims, row, strict=True))
        }

    def active(self, indices: Sequence[int]) -> list[bool]:
        """Which genes count: the depth, dims where it reaches, attributes where a dim is not 0."""
        dims = self.decode(indices)["dim"]
        reached = self.reach(self.depths[indices[0]])
        return [True] + [
            any(block in reached for block in gene.blocks)
            if gene.attribute == "dim"
            else any(dims[block] for block in gene.blocks)
            for gene in self.genes[1:]
        ]

    def filled(self, values: Values) -> dict[str, Sequence[Value]]:
        """The values with every attribute that the space declares, defaults written out."""
        dims = values["dim"]
        return {
            name: values.get(name) or [default if dim else None for dim in dims]
            for name, default in self.defaults.items()
        } | {"dim": dims}

    def encodings(self, values: Values) -> list[list[int]]:
        """Every gene vector that means these values, genes that do not count being 0; by depth.

        Empty if they are not in the space.
        """
        values = self.filled(values)
        tail: list[int] = []
        for gene in self.genes:
            if gene.attribute not in ("dim", "depth"):
                row, dims = values[gene.attribute], values["dim"]
                there = {row[block] for block in gene.blocks if dims[block]}
                if len(there) > 1 or not there <= set(gene.choices):
                    return []
                tail.append(gene.choices.index(there.pop()) if there else 0)
        heads = (self._encoded(values["dim"], depth) for depth in self.depths)
        return [[index, *head, *tail] for index, head in enumerate(heads) if head is not None]

    def _encoded(self, dims: Sequence[Value], depth: int) -> list[int] | None:
        reached = self.reach(depth)
        offered = {block for group in self.groups for block in group}
        if any(d and (i not in reached or i not in offered) for i, d in enumerate(dims)):
            return None
        found = []
        for group in self.groups:
            there = {dims[block] for block in group if block in reached}
            choices = self.choices[group[0]]
            if len(there) > 1 or not there <= set(choices):
                return None
            found.append(choices.index(there.pop()) if there else 0)
        return found

    def misfit(self, values: Values) -> str | None:
        """Why the values are none of this module's; None if they are."""
        for name in values:
            if name != "dim" and name not in self.attributes:
                return f"{self.name}: this space declares no attribute {name}"
        if self.encodings(values):
            return None
        filled = self.filled(values)
        for name, choices in self.attributes.items():
            row = filled[name]
            there = [v for v, d in zip(row, values["dim"], strict=True) if d]
            strange = [v for v in there if v not in choices]
            if strange:
                return f"{self.name}.{name} {strange[0]} is none of {list(choices)}"
            for group in self.attribute_groups[name]:
                if len({row[b] for b in group if values["dim"][b]}) > 1:
                    return (
                        f"{self.name}.{name} differs between blocks {span(group)}, which share it"
                    )
        return self._misfit_of_dims(values["dim"])

    def _misfit_of_dims(self, dims: Sequence[Value]) -> str:
        all_dims = sorted({d for choices in self.choices for d in choices})
        end = " from the last block" if self.from_last else ""
        tie = ", ties" if any(len(group) > 1 for group in self.groups) else ""
        return (
            f"{self.name} {list(dims)} is none of dims {tuple(all_dims)}, depth {self.depths}"
            f"{end}{tie}"
        )


def span(blocks: Sequence[int]) -> str:
    """Blocks that share a gene, in words."""
    return f"{blocks[0]}-{blocks[-1]}"
