"""Supernet: a frozen timm ViT and elastic prompt modules with shared weights; runs any Arch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noahnas.backbone.families import family_of
from noahnas.backbone.hooks import Act, Change
from noahnas.errors import ArchError
from noahnas.modules.asked import attributes_at, check_asked, check_sites, kind_of
from noahnas.modules.base import Layout, PromptModule, Site, Values
from noahnas.modules.mixture import Mixed, blend, log_mask, settings
from noahnas.space import Arch, Space
from noahnas.space.declaration import params_of
from noahnas.space.schema import Value

Mixture = Mapping[str, Sequence[Mapping[int, Tensor]]]  # per module and block: of each dim
Attributes = Mapping[str, Mapping[str, Sequence[Mapping[Value, Tensor]]]]  # and of their values
Acting = tuple[PromptModule, int, dict[str, Value]]  # a module in a block, its dim and attributes
FOLDED = 512  # tokens of a batch from which on it pays to put modules into weights


@dataclass(frozen=True)
class State:
    """What goes from block to block."""

    tokens: Tensor  # (B, N + p, D): the model's own, and prompts behind them
    count: int  # N
    positions: Any  # as `Family.embed` gave them
    layout: Layout


@dataclass(frozen=True)
class Deeds:
    """What an arch does in a block."""

    acts: Sequence[Act]
    prompts: Sequence[Tensor]  # (b, p, D), b = B or 1; they replace those that are still there
    prefix: Sequence[Tensor]  # (b, p, 2D)
    tokenwise: bool  # all acts are
    lasting: bool  # whether prompts are there after the block

    def prompted(self, state: State) -> State:
        """What enters the block: prompts that last are tokens in the place of earlier ones."""
        if not self.prompts:
            return state
        own = state.tokens[:, : state.count]  # (B, N, D)
        if self.brief:
            return replace(state, tokens=own)
        rows = [part.expand(len(own), -1, -1) for part in self.prompts]  # (B, p, D)
        return replace(state, tokens=torch.cat([own, *rows], dim=1))  # (B, N + p, D)

    @property
    def brief(self) -> Sequence[Tensor]:
        """Prompts (b, p, D) that attention reads in this block, and that nobody asks for after."""
        return () if self.lasting or not self.tokenwise else self.prompts


class Supernet(nn.Module):
    """Every architecture of a space in one set of shared weights.

    The backbone's code is not modified: prompt tokens are put in between its blocks, and what
    other modules do is done by hooks that live for one block of one call, so that no hidden state
    survives a call. Two threads must not call one supernet at the same time.

    Each block holds modules as wide as the largest dim that it may have there, and with the weights
    of every attribute value that the space offers; which values share weights, each module says.

    Args:
        backbone: a timm vision transformer (`noahnas.backbone.families`). It is frozen, and its
            classifier is replaced by a new one, which is trained.
        space: the architectures; it is bound to the backbone. An Arch stands for itself alone:
            the network then holds just that arch's weights.
        num_classes: outputs of the classifier.
        dropout: dropout probability inside prompt modules while training.

    Raises:
        BackboneError: if the backbone is not supported.
        SpaceError: if the space does not fit it.
        ArchError: if the arch does not fit it, or asks a module for what it does not have.

    Source: NOAH, arXiv:2206.04673; weight entanglement: AutoFormer, arXiv:2107.00651.
    """

    def __init__(
        self,
        backbone: nn.Module,
        space: Space | Arch,
        num_classes: int,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.family = family_of(backbone, type(backbone).__name__)
        vit: Any = backbone
        vit.reset_classifier(num_classes)
        vit.requires_grad_(False)
        self.backbone = vit
        for head in self.heads:
            head.requires_grad_(True)
        self.shape = self.family.shape
        self.width, self.blocks = self.shape.width, self.shape.blocks
        declared: Mapping[str, Values] = {}
        if isinstance(space, Arch):
            self.largest = space
        else:
            bound = space.bind(vit)
            self.largest, declared = bound.largest, bound.choices
        self._check_blocks(self.largest)
        self.prompts = nn.ModuleDict()
        self._values: dict[str, list[Values]] = {}  # per module and block: held
        for name in self.largest.modules:
            kind = kind_of(name)
            check_asked(kind, self.largest)
            offered = {key: tuple(v) for key, v in declared.get(name, {}).items() if key != "dim"}
            asked = [attributes_at(kind, self.largest, block) for block in range(self.blocks)]
            for told in asked:
                check_sites(kind, told)
            self._values[name] = [
                {key: (value,) for key, value in told.items()} | offered for told in asked
            ]
            self.prompts[name] = nn.ModuleList(
                kind(self.shape, dim, values, dropout) if dim else nn.Identity()
                for dim, values in zip(self.largest.dims(name), self._values[name], strict=True)
            )

    @property
    def heads(self) -> list[nn.Module]:
        """The model's classifiers D -> num_classes: one, or two whose logits it averages."""
        return [getattr(self.backbone, name) for name in self.family.heads]

    @property
    def head(self) -> nn.Module:
        """All of the classifier."""
        heads = self.heads
        return heads[0] if len(heads) == 1 else nn.ModuleList(heads)

    def params(self, arch: Arch) -> int:
        """Trainable prompt parameters that `arch` uses; the head is not counted."""
        return sum(
            params_of(name, self.shape, dim, **attributes_at(kind_of(name), arch, block))
            for name in arch.modules
            for block, dim in enumerate(arch.dims(name))
            if dim
        )

    def trainable(self) -> dict[str, Tensor]:
        """Names and tensors of all that is trained: the prompt modules and the head."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def check(self, arch: Arch) -> None:
        """Raise ArchError unless this network holds weights for `arch`."""
        self._check_blocks(arch)
        for name in arch.modules:
            pairs = zip(arch.dims(name), self.largest.dims(name) or (0,) * self.blocks, strict=True)
            if any(dim > most for dim, most in pairs):
                raise ArchError(
                    f"{name} {list(arch.dims(name))} is wider than this network's weights"
                )
            kind = kind_of(name)
            check_asked(kind, arch)
            for block, dim in enumerate(arch.dims(name)):
                if dim:
                    self._check_values(name, block, attributes_at(kind, arch, block))

    def _check_blocks(self, arch: Arch) -> None:
        if arch.blocks not in (0, self.blocks):
            raise ArchError(f"the arch has {arch.blocks} blocks, the backbone {self.blocks}")

    def _check_values(self, name: str, block: int, told: Mapping[str, Value]) -> None:
        for key, value in told.items():
            held = self._values[name][block][key]
            if value not in held:
                known = ", ".join(map(str, held))
                raise ArchError(
                    f"{name}.{key} {value} of block {block}: this network holds weights for {known}"
                )

    def forward(self, images: Tensor, arch: Arch) -> Tensor:
        """Logits of a batch under one architecture.

        Args:
            images: (B, 3, H, W), normalised for the backbone.
            arch: any arch within the network's largest one.

        Returns:
            (B, num_classes).

        Raises:
            ArchError: if the network holds no weights for `arch`.
        """
        self.check(arch)
        if not any(any(arch.dims(name)) for name in arch.modules):
            logits: Tensor = self.backbone(images)  # nothing acts: timm's own forward
            return logits  # (B, classes)
        states = [self.begin(images)]
        for index in range(self.blocks):
            states = self.step(index, states, arch)
        return self.end(states[0])

    def begin(self, images: Tensor) -> State:
        """What the first block is given: images (B, 3, H, W) as tokens."""
        x, positions = self.family.embed(images)  # (B, 3, H, W) -> (B, N, D)
        return State(x, x.shape[1], positions, self.family.layout(images))

    def step(self, index: int, states: Sequence[State], arch: Arch) -> list[State]:
        """One block under an arch that this network holds weights for (`check`).

        What modules do to the block's weights is done once for all states.
        """
        deeds = self.deeds(index, states, arch)
        ready = [deed.prompted(state) for deed, state in zip(deeds, states, strict=True)]
        return self.run(index, ready, deeds)

    def lasting(self, index: int, arch: Arch) -> bool:
        """Whether prompts of a block are there in the next one, which has none of its own."""
        if index == self.blocks - 1:
            return False
        following = self._acting(index + 1, arch)
        return not any("tokens" in module.sites(**told) for module, _, told in following)

    def deeds(self, index: int, states: Sequence[State], arch: Arch) -> list[Deeds]:
        """What an arch does in a block to each state; their images are of one size."""
        acts: list[Act] = []
        adding: list[tuple[Site, Change]] = []
        tokenwise = True
        for module, dim, told in self._acting(index, arch):
            act = partial(module, dim=dim, layout=states[0].layout, **told)
            folds: Any = module.fold
            for site in module.sites(**told):
                if site in ("tokens", "prefix"):
                    adding.append((site, partial(act, site)))
                else:
                    fold = partial(folds, site, dim=dim, **told)
                    acts.append(Act(site, partial(act, site), fold))
                    tokenwise = tokenwise and module.tokenwise
        lasting = self.lasting(index, arch)

        def added(site: Site, x: Tensor) -> list[Tensor]:
            return [change(x, x) for where, change in adding if where == site]

        return [
            Deeds(
                acts,
                added("tokens", state.tokens),  # (b, p, D) each
                added("prefix", state.tokens),  # (b, p, 2D) each
                tokenwise,
                lasting,
            )
            for state in states
        ]

    def run(self, index: int, states: Sequence[State], deeds: Sequence[Deeds]) -> list[State]:
        """One block, the prompts being there; for each state what is done, all by the same modules.

        Where no gradients are asked for, what acts linearly is put into the layers' weights if
        there are enough tokens. What follows attention is computed for tokens that are read
        afterwards, and no others: not for prompts that the next block replaces, and in the last
        block for what the classifier reads.
        """
        first = deeds[0]
        count = states[0].count if index < self.blocks - 1 else self.family.read(states[0].count)
        wanted = count if first.tokenwise and not first.lasting else None
        quiet = not self.training and not torch.is_grad_enabled()
        tokens = sum(state.tokens.shape[0] * state.tokens.shape[1] for state in states)
        found = []
        with self.family.acting(index, first.acts, fold=quiet and tokens >= FOLDED):
            for state, deed in zip(states, deeds, strict=True):
                x = self.family.run(
                    index,
                    state.tokens,
                    state.positions,
                    count=state.count,
                    prefix=deed.prefix,
                    prompts=deed.brief,
                    wanted=wanted,
                )  # (B, N + p, D), or as many as are read
                found.append(replace(state, tokens=x))
        return found

    def end(self, state: State) -> Tensor:
        """What the last block leaves, as logits (B, num_classes)."""
        return self.family.classify(state.tokens[:, : state.count])  # (B, N, D) -> (B, classes)

    def mixture(
        self, images: Tensor, weights: Mixture, attributes: Attributes | None = None
    ) -> Tensor:
        """Logits when every dim is drawn with given probabilities; differentiable in them.

        At probabilities of 0 and 1 it equals `forward`. In between, modules that change a layer's
        output are their exact mean (`PromptModule.mix`), over dims and over combinations of
        attribute values, all drawn independently. A prompt token that is there with probability p
        takes attention p times that of one that is surely there: log p is added to its key. Where a
        block's module is absent with probability w, earlier prompts stay with probability w.

        Args:
            images: (B, 3, H, W), normalised for the backbone.
            weights: per module and block the probability (a scalar tensor) of each dim, 0 included.
            attributes: per module, attribute and block the probability of each value. One left out
                has its default, or the only value that the network holds.

        Returns:
            (B, num_classes).

        Raises:
            ArchError: if the network holds no weights for a value.
        """
        layout = self.family.layout(images)
        x, positions = self.family.embed(images)  # (B, 3, H, W) -> (B, N, D)
        count = x.shape[1]
        there: Tensor | None = None  # (p), the probability that each prompt token is there
        for index in range(self.blocks):
            acts: list[Act] = []
            prefix: list[tuple[Tensor, Tensor]] = []
            for mixed in self._mixed(index, weights, attributes or {}):
                for site in mixed.sites:
                    if site == "tokens":
                        own = mixed.tokens(site, x, layout)  # (B, p, D), (p)
                        absent = mixed.dims.get(0, own[1].new_zeros(()))  # ()
                        x, there = blend(x, count, there, own, absent)
                    elif site == "prefix":
                        prefix.append(mixed.tokens(site, x, layout))  # (B, p, 2D), (p)
                    else:
                        acts.append(Act(site, mixed.change(site, layout)))
            chances = [*([] if there is None else [there]), *(alive for _, alive in prefix)]
            with self.family.acting(index, acts):
                x = self.family.run(
                    index,
                    x,
                    positions,
                    count=count,
                    prefix=[rows for rows, _ in prefix],
                    mask=log_mask(chances, x.shape[1] - (0 if there is None else len(there))),
                )  # (B, N + p, D)
        return self.family.classify(x[:, :count])  # (B, N, D) -> (B, classes)

    def _module(self, name: str, block: int) -> nn.Module:
        blocks: Any = self.prompts[name]
        module: nn.Module = blocks[block]
        return module

    def _acting(self, block: int, arch: Arch) -> Iterator[Acting]:
        """The modules that an arch has in a block."""
        for name in arch.modules:
            dim = arch.dim(name, block)
            module = self._module(name, block) if dim else None
            if isinstance(module, PromptModule):
                yield module, dim, attributes_at(type(module), arch, block)

    def _mixed(self, block: int, weights: Mixture, attributes: Attributes) -> Iterator[Mixed]:
        """The modules of a mixture in a block."""
        for name in sorted(weights):
            module, dims = self._module(name, block), weights[name][block]
            if max(dims) > self.largest.dim(name, block):
                raise ArchError(
                    f"{name} {max(dims)} of block {block} is wider than this network's weights"
                )
            if not isinstance(module, PromptModule) or not any(dims):
                continue
            chances: dict[str, Mapping[Value, Tensor | None]] = {}
            for key, held in self._values[name][block].items():
                given = attributes.get(name, {}).get(key)
                default = module.attributes[key].default
                alone = {held[0] if len(held) == 1 else default: None}
                chances[key] = alone if given is None else given[block]
                for value in chances[key]:
                    self._check_values(name, block, {key: value})
            yield Mixed(module, dims, settings(chances))
