"""Supernet: a frozen timm ViT and elastic prompt modules with shared weights; runs any Arch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas.backbone import check_supported
from noahnas.errors import ArchError
from noahnas.modules.base import PromptModule, Site, survival
from noahnas.registry import resolve
from noahnas.space import Arch, Shape, Space
from noahnas.space.declaration import params_of

Add = Callable[[Tensor], Tensor]
Mixture = Mapping[str, Sequence[Mapping[int, Tensor]]]
TINY = 1e-12  # probability under which a prompt token gets no attention in fp32


class Supernet(nn.Module):
    """Every architecture of a space in one set of shared weights.

    The backbone's code is not modified: prompt tokens are put in between its blocks, and what
    other modules add is added by hooks that live for one block of one call, so that no hidden
    state survives a call. Two threads must not call one supernet at the same time.

    Args:
        backbone: a timm ViT with a class token. It is frozen, and its classifier is replaced by a
            new one, which is trained.
        space: the architectures; it is bound to the backbone. An Arch stands for itself alone:
            the network then holds just that arch's weights.
        num_classes: outputs of the classifier.
        dropout: dropout probability inside prompt modules while training.

    Raises:
        BackboneError: if the backbone is not supported.
        SpaceError: if the space does not fit it.

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
        check_supported(backbone, type(backbone).__name__)
        vit: Any = backbone
        vit.reset_classifier(num_classes)
        vit.requires_grad_(False)
        vit.head.requires_grad_(True)
        self.backbone = vit
        self.width = int(vit.embed_dim)
        self.blocks = len(vit.blocks)
        self.shape = Shape(self.blocks, self.width)
        self.largest = space if isinstance(space, Arch) else space.bind(vit).largest
        if self.largest.blocks not in (0, self.blocks):
            raise ArchError(
                f"the arch has {self.largest.blocks} blocks, the backbone {self.blocks}"
            )
        self._check_attributes(self.largest)
        self.prompts = nn.ModuleDict()
        for name in self.largest.modules:
            kind: type[PromptModule] = resolve("noahnas.modules", name, "module", ArchError)
            self.prompts[name] = nn.ModuleList(
                kind(self.width, dim, dropout) if dim else nn.Identity()
                for dim in self.largest.dims(name)
            )

    @property
    def head(self) -> nn.Module:
        """The classifier: D -> num_classes."""
        head: nn.Module = self.backbone.head
        return head

    def params(self, arch: Arch) -> int:
        """Trainable prompt parameters that `arch` uses; the head is not counted."""
        return sum(
            params_of(name, self.shape, dim) for name in arch.modules for dim in arch.dims(name)
        )

    def trainable(self) -> dict[str, Tensor]:
        """Names and tensors of all that is trained: the prompt modules and the head."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def _check_attributes(self, arch: Arch) -> None:
        for name in arch.modules:
            extra = sorted(set(arch[name]) - {"dim"})
            if extra:
                raise ArchError(f"{name} has no attribute {', '.join(extra)} (known: dim)")

    def check(self, arch: Arch) -> None:
        """Raise ArchError unless this network holds weights for `arch`."""
        self._check_attributes(arch)
        if arch.blocks not in (0, self.blocks):
            raise ArchError(f"the arch has {arch.blocks} blocks, the backbone {self.blocks}")
        for name in arch.modules:
            pairs = zip(arch.dims(name), self.largest.dims(name) or (0,) * self.blocks, strict=True)
            if any(dim > most for dim, most in pairs):
                raise ArchError(
                    f"{name} {list(arch.dims(name))} is wider than this network's weights"
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
        x = self._embed(images)  # (B, 3, H, W) -> (B, N, D)
        count = x.shape[1]
        for index, block in enumerate(self.backbone.blocks):
            acting = list(self._acting(index, arch))
            prompts = [module(x, dim) for module, dim in acting if module.site == "tokens"]
            if prompts:
                x = torch.cat([x[:, :count], *prompts], dim=1)  # (B, N + p, D)
            with _adding(block, [(module.site, _at(module, dim)) for module, dim in acting]):
                x = block(x)  # (B, N + p, D)
        return self._classify(x[:, :count])  # (B, N, D) -> (B, classes)

    def mixture(self, images: Tensor, weights: Mixture) -> Tensor:
        """Logits when every dim is drawn with given probabilities; differentiable in them.

        At probabilities of 0 and 1 it equals `forward`. In between, modules that add are their
        exact mean (`PromptModule.mix`). A prompt token that is there with probability p takes
        attention p times that of one that is surely there: log p is added to its key. Where a
        block's module is absent with probability w, earlier prompts stay with probability w.

        Args:
            images: (B, 3, H, W), normalised for the backbone.
            weights: per module and block the probability (a scalar tensor) of each dim, 0 included.

        Returns:
            (B, num_classes).
        """
        x = self._embed(images)  # (B, 3, H, W) -> (B, N, D)
        count = x.shape[1]
        there: Tensor | None = None  # (p), the probability that each prompt token is there
        for index, block in enumerate(self.backbone.blocks):
            acting = [
                (module, dims[index])
                for name, dims in weights.items()
                if isinstance(module := self._module(name, index), PromptModule)
            ]
            for module, dims in acting:
                if module.site == "tokens":
                    x, there = _blend(x, count, there, module, dims)
            adders = [(module.site, _mean(module, dims)) for module, dims in acting]
            with _adding(block, adders):
                x = block(x) if there is None else block(x, attn_mask=_mask(there, count))
        return self._classify(x[:, :count])  # (B, N, D) -> (B, classes)

    def _embed(self, images: Tensor) -> Tensor:
        vit = self.backbone
        x = vit.patch_embed(images)  # (B, 3, H, W) -> (B, N - prefix, D)
        tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))  # (B, N, D)
        return tokens

    def _classify(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.backbone.forward_head(self.backbone.norm(tokens))
        return logits  # (B, N, D) -> (B, classes)

    def _module(self, name: str, block: int) -> nn.Module:
        blocks: Any = self.prompts[name]
        module: nn.Module = blocks[block]
        return module

    def _acting(self, block: int, arch: Arch) -> Iterator[tuple[PromptModule, int]]:
        """The modules that an arch has in a block, with their dims."""
        for name in arch.modules:
            dim, module = arch.dim(name, block), self._module(name, block)
            if dim and isinstance(module, PromptModule):
                yield module, dim


@contextmanager
def _adding(block: Any, adders: Iterable[tuple[Site, Add]]) -> Iterator[None]:
    """Add what modules return to the block's own layers, for one call."""
    with ExitStack() as stack:
        for site, add in adders:
            if site == "qkv":
                hook = _add_of_input(add)
                stack.callback(block.attn.qkv.register_forward_hook(hook).remove)
            elif site == "mlp":
                hook = _add_of_output(add)
                stack.callback(block.drop_path2.register_forward_hook(hook).remove)
        yield


def _add_of_input(add: Add) -> Any:
    return lambda _layer, args, out: out + add(args[0])  # (B, N, 3D)


def _add_of_output(add: Add) -> Any:
    return lambda _layer, _args, out: out + add(out)  # (B, N, D)


def _at(module: PromptModule, dim: int) -> Add:
    return lambda x: module(x, dim)


def _mean(module: PromptModule, weights: Mapping[int, Tensor]) -> Add:
    return lambda x: module.mix(x, weights)


def _blend(
    x: Tensor,
    count: int,
    there: Tensor | None,
    module: PromptModule,
    weights: Mapping[int, Tensor],
) -> tuple[Tensor, Tensor]:
    """Tokens (B, N + p, D) with a block's own prompts put where earlier ones may stay.

    Slot j holds this block's prompt j with probability P(dim > j), and with P(dim = 0) what it
    held before; its value is the mean of both given that one of them is there. The second result
    (p,) is the probability that one is.
    """
    largest = max(weights)
    own = survival(weights, largest)  # (p)
    new = module(x, largest)  # (B, p, D)
    if there is None:
        return torch.cat([x[:, :count], new], dim=1), own
    size = max(len(there), largest)
    stay = F.pad(there, (0, size - len(there))) * weights.get(0, own.new_zeros(()))  # (p)
    own = F.pad(own, (0, size - largest))  # (p)
    old = F.pad(x[:, count:], (0, 0, 0, size - len(there)))  # (B, p, D)
    new = F.pad(new, (0, 0, 0, size - largest))  # (B, p, D)
    both = own + stay  # (p)
    share = (own / both.clamp_min(TINY))[:, None]  # (p, 1)
    return torch.cat([x[:, :count], share * new + (1 - share) * old], dim=1), both


def _mask(there: Tensor, count: int) -> Tensor:
    """(1, 1, 1, N + p): what is added to each key's attention, 0 or log p(there)."""
    return F.pad(there.clamp_min(TINY).log(), (count, 0))[None, None, None]
