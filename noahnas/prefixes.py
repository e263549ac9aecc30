"""Architectures that begin alike: the blocks before the first difference are computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from noahnas.backbone.hooks import Act, Change
from noahnas.modules.asked import attributes_at, kind_of
from noahnas.space import Arch
from noahnas.supernet import Deeds, State, Supernet

Outputs = Iterator[tuple[Arch, Tensor]]  # archs and their logits (n, classes)
States = Sequence[State]  # of batches, one after the other
KEPT = 2**29  # bytes of tokens that are kept for architectures to come


@dataclass(frozen=True)
class Node:
    """Architectures that do the same in the first blocks; the root's have done nothing yet."""

    archs: tuple[Arch, ...]
    children: tuple[Node, ...]  # one for each thing that they do in the next block
    key: Hashable  # what they have done

    @property
    def arch(self) -> Arch:
        """One of them, for all."""
        return self.archs[0]

    def shares(self, blocks: int, known: Container[Hashable] = ()) -> dict[Arch, float]:
        """Each arch's part of the blocks that are computed, as a share of a whole forward.

        Args:
            blocks: in a whole forward.
            known: keys of nodes whose tokens are there already (`Kept`).
        """
        found = dict.fromkeys(self.archs, 0.0)

        def count(node: Node) -> bool:  # whether its tokens are needed
            needed = [count(child) for child in node.children]
            if node.key in known or (needed and not any(needed)):
                return False
            for arch in node.archs:
                found[arch] += 1 / len(node.archs) / blocks
            return True

        for child in self.children:
            count(child)
        return found


class Kept:
    """Tokens after first blocks, kept for architectures to come that begin as earlier ones did.

    What was used least recently is given up where there are too many bytes of them. For weights,
    images and a precision that stay as they are.
    """

    def __init__(self, most: int = KEPT) -> None:
        self.most = most
        self._states: OrderedDict[Hashable, States] = OrderedDict()
        self._bytes = 0

    def find(self, root: Node) -> dict[Hashable, States]:
        """What is kept of the nodes of a tree, by their keys."""
        found: dict[Hashable, States] = {}
        nodes = list(root.children)
        while nodes:
            node = nodes.pop()
            nodes += node.children
            if node.key in self._states:
                self._states.move_to_end(node.key)
                found[node.key] = self._states[node.key]
        return found

    def add(self, key: Hashable, states: States) -> None:
        """Keep the tokens of a node; others may have to go."""
        self._states[key] = states
        self._bytes += _bytes(states)
        while self._bytes > self.most:
            _, gone = self._states.popitem(last=False)
            self._bytes -= _bytes(gone)

    def clear(self) -> None:
        """Keep nothing: memory is short, or the weights are others."""
        self._states.clear()
        self._bytes = 0


def _bytes(states: States) -> int:
    return sum(state.tokens.untyped_storage().nbytes() for state in states)


def tree(net: Supernet, archs: Sequence[Arch], of: Hashable = None) -> Node:
    """Distinct architectures by what they do, block after block.

    Args:
        net: their weights.
        archs: each once.
        of: which images they are run on, for the keys of nodes.

    Raises:
        ArchError: if the network holds no weights for one.
    """
    for arch in archs:
        net.check(arch)
    return _node(net, tuple(archs), 0, of)


def _node(net: Supernet, archs: tuple[Arch, ...], index: int, key: Hashable) -> Node:
    if index == net.blocks:
        return Node(archs, (), key)
    alike: dict[Hashable, list[Arch]] = {}
    for arch in archs:
        alike.setdefault((_at(arch, index), net.lasting(index, arch)), []).append(arch)
    below = (_node(net, tuple(same), index + 1, (key, what)) for what, same in alike.items())
    return Node(archs, tuple(below), key)


def _at(arch: Arch, block: int) -> Hashable:
    """What an arch does in a block."""
    return tuple(
        (name, dim, *sorted(attributes_at(kind_of(name), arch, block).items()))
        for name in arch.modules
        if (dim := arch.dim(name, block))
    )


def deep(
    net: Supernet,
    images: Sequence[Tensor],
    root: Node,
    known: Mapping[Hashable, States] | None = None,
    keep: Callable[[Hashable, States], None] | None = None,
) -> Outputs:
    """Logits of all architectures, one block at a time, depth first.

    Holds the tokens of one path alone: as many times (n, N, D) as there are blocks. A block runs
    on one batch after the other, so that what an architecture does to its weights is done once.
    A block is not run where the tokens after it, or after all that follow it, are known.

    Args:
        net: their weights.
        images: batches (B, 3, H, W), n images together, normalised for the backbone.
        root: the architectures (`tree`).
        known: the tokens of nodes, for these images, by their keys.
        keep: is given the tokens of nodes of the first half of the blocks. Later ones are seldom
            met again.
    """
    there = known or {}

    def below(node: Node, index: int, states: Callable[[], States]) -> Outputs:
        if index == net.blocks:
            logits = torch.cat([net.end(state) for state in states()])  # (n, classes)
            yield from ((arch, logits) for arch in node.archs)

        def after(child: Node) -> States:
            if child.key in there:
                return there[child.key]
            found = net.step(index, states(), child.arch)
            if keep and 2 * (index + 1) <= net.blocks:
                keep(child.key, found)
            return found

        for child in node.children:
            yield from below(child, index + 1, cache(partial(after, child)))

    yield from below(root, 0, cache(lambda: [net.begin(part) for part in images]))


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
                (deeds,) = net.deeds(index, [state], child.arch)
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
