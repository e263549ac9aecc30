"""Architectures that begin alike: the blocks before the first difference are computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noahnas.backbone.hooks import Act, Change
from noahnas.modules.asked import attributes_at, kind_of
from noahnas.space import Arch
from noahnas.supernet import Deeds, State, Supernet

Outputs = Iterator[tuple[Arch, Tensor]]  # archs and their logits (n, classes)


@dataclass(frozen=True)
class Node:
    """Architectures that do the same in the first blocks; the root's have done nothing yet."""

    archs: tuple[Arch, ...]
    children: tuple[Node, ...]  # one for each thing that they do in the next block

    @property
    def arch(self) -> Arch:
        """One of them, for all."""
        return self.archs[0]

    def shares(self, blocks: int) -> dict[Arch, float]:
        """Each arch's part of the blocks that are computed, as a share of a whole forward."""
        found = dict.fromkeys(self.archs, 0.0)
        below = list(self.children)
        while below:
            node = below.pop()
            for arch in node.archs:
                found[arch] += 1 / len(node.archs) / blocks
            below += node.children
        return found


def tree(net: Supernet, archs: Sequence[Arch]) -> Node:
    """Distinct architectures by what they do, block after block.

    Raises:
        ArchError: if the network holds no weights for one.
    """
    for arch in archs:
        net.check(arch)
    return _node(net, tuple(archs), 0)


def _node(net: Supernet, archs: tuple[Arch, ...], index: int) -> Node:
    if index == net.blocks:
        return Node(archs, ())
    alike: dict[Hashable, list[Arch]] = {}
    for arch in archs:
        alike.setdefault((_at(arch, index), net.lasting(index, arch)), []).append(arch)
    below = (_node(net, tuple(group), index + 1) for group in alike.values())
    return Node(archs, tuple(below))


def _at(arch: Arch, block: int) -> Hashable:
    """What an arch does in a block."""
    return tuple(
        (name, dim, *sorted(attributes_at(kind_of(name), arch, block).items()))
        for name in arch.modules
        if (dim := arch.dim(name, block))
    )


def deep(net: Supernet, images: Sequence[Tensor], root: Node) -> Outputs:
    """Logits of all architectures, one block at a time, depth first.

    Holds the tokens of one path alone: as many times (n, N, D) as there are blocks. A block runs
    on one batch after the other, so that what an architecture does to its weights is done once.

    Args:
        net: their weights.
        images: batches (B, 3, H, W), n images together, normalised for the backbone.
        root: the architectures (`tree`).
    """

    def below(node: Node, index: int, states: list[State]) -> Outputs:
        if index == net.blocks:
            logits = torch.cat([net.end(state) for state in states])  # (n, classes)
            yield from ((arch, logits) for arch in node.archs)
        for child in node.children:
            yield from below(child, index + 1, net.step(index, states, child.arch))

    yield from below(root, 0, [net.begin(part) for part in images])


def wide(net: Supernet, images: Tensor, root: Node, most: int) -> Outputs:
    """The same, several architectures in one forward: the frozen layers run once for all of them.

    Holds the tokens of all architectures at once.

    Args:
        net: as for `deep`.
        images: (B, 3, H, W), normalised for the backbone.
        root: as for `deep`.
        most: images in one forward, those of all architectures counted.
    """
    level = [(root, net.begin(images))]
    for index in range(net.blocks):
        alike: dict[Hashable, list[tuple[Node, State, Deeds]]] = {}
        for node, state in level:
            for child in node.children:
                deeds = net.deeds(index, state, child.arch)
                state_in = deeds.prompted(state)
                rows = [sum(part.shape[1] for part in some) for some in (deeds.prefix, deeds.brief)]
                shape = state_in.tokens.shape[1], *rows, deeds.tokenwise, deeds.lasting
                alike.setdefault(shape, []).append((child, state_in, deeds))
        level = []
        size = max(1, most // len(images))
        for group in alike.values():
            for first in range(0, len(group), size):
                part = group[first : first + size]
                states, deeds_of = [s for _, s, _ in part], [d for _, _, d in part]
                whole = replace(states[0], tokens=torch.cat([s.tokens for s in states]))
                joint = deeds_of[0] if len(part) == 1 else _joint(deeds_of, len(images))
                (out,) = net.run(index, [whole], [joint])
                pieces = out.tokens.split(len(images))  # (A·B, N, D) -> A × (B, N, D)
                level += [
                    (node, replace(out, tokens=tokens))
                    for (node, _, _), tokens in zip(part, pieces, strict=True)
                ]
    for node, state in level:
        logits = net.end(state)  # (B, classes)
        yield from ((arch, logits) for arch in node.archs)


def _joint(parts: Sequence[Deeds], images: int) -> Deeds:
    """What several architectures do, each to its own `images` of the batch."""
    sites = dict.fromkeys(act.site for deeds in parts for act in deeds.acts)
    acts = [
        Act(site, _each([[a.change for a in deeds.acts if a.site == site] for deeds in parts]))
        for site in sites
    ]
    prefix = _rows([deeds.prefix for deeds in parts], images)  # (A·B, p, 2D)
    brief = _rows([deeds.brief for deeds in parts], images)  # (A·B, p, D)
    return replace(parts[0], acts=acts, prefix=prefix, prompts=brief)


def _rows(parts: Sequence[Sequence[Tensor]], images: int) -> list[Tensor]:
    """Rows (b, p, D') of each architecture, for its own images: (A·B, p, D'), if there are any."""
    joined = [torch.cat(list(rows), dim=1) for rows in parts if rows]  # A × (b, p, D')
    return [torch.cat([rows.expand(images, -1, -1) for rows in joined])] if joined else []


def _each(changes: Sequence[Sequence[Callable[[Tensor, Tensor], Tensor]]]) -> Change:
    def change(x: Tensor, out: Tensor) -> Tensor:
        found = []
        pairs = zip(x.chunk(len(changes)), out.chunk(len(changes)), strict=True)
        for own, (part, result) in zip(changes, pairs, strict=True):
            for one in own:
                result = one(part, result)
            found.append(result)
        return torch.cat(found)  # (A·B, N, D)

    return change
