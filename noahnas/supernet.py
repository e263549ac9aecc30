"""Supernet: a frozen timm ViT and elastic prompt modules with shared weights; runs any Arch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from noahnas.backbone import check_supported
from noahnas.errors import ArchError
from noahnas.modules.base import PromptModule, Site
from noahnas.registry import resolve
from noahnas.space import Arch, Space
from noahnas.space.space import params_of


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
        self.largest = space if isinstance(space, Arch) else space.bind(vit).largest
        if self.largest.blocks not in (0, self.blocks):
            raise ArchError(
                f"the arch has {self.largest.blocks} blocks, the backbone {self.blocks}"
            )
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
            params_of(name, self.width, dim) for name in arch.modules for dim in arch.dims(name)
        )

    def trainable(self) -> dict[str, Tensor]:
        """Names and tensors of all that is trained: the prompt modules and the head."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def check(self, arch: Arch) -> None:
        """Raise ArchError unless this network holds weights for `arch`."""
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
        vit = self.backbone
        x = vit.patch_embed(images)  # (B, 3, H, W) -> (B, N - prefix, D)
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))  # (B, N, D)
        count = x.shape[1]
        for index, block in enumerate(vit.blocks):
            prompts = [module(x, dim) for module, dim in self._at("tokens", index, arch)]
            if prompts:
                x = torch.cat([x[:, :count], *prompts], dim=1)  # (B, N + p, D)
            with self._hooked(index, block, arch):
                x = block(x)  # (B, N + p, D)
        x = vit.norm(x[:, :count])  # (B, N + p, D) -> (B, N, D)
        logits: Tensor = vit.forward_head(x)  # (B, N, D) -> (B, classes)
        return logits

    def _at(self, site: Site, block: int, arch: Arch) -> Iterator[tuple[PromptModule, int]]:
        """The modules that act at a site of one block, with their dims."""
        for name in arch.modules:
            module: Any = self.prompts[name][block]  # type: ignore[index]
            dim = arch.dim(name, block)
            if dim and module.site == site:
                yield module, dim

    @contextmanager
    def _hooked(self, index: int, block: Any, arch: Arch) -> Iterator[None]:
        """Add what the arch's modules return to the block's own layers, for one call."""
        with ExitStack() as stack:
            for module, dim in self._at("qkv", index, arch):
                hook = _add_from_input(module, dim)
                stack.callback(block.attn.qkv.register_forward_hook(hook).remove)
            for module, dim in self._at("mlp", index, arch):
                hook = _add_from_output(module, dim)
                stack.callback(block.drop_path2.register_forward_hook(hook).remove)
            yield


def _add_from_input(module: PromptModule, dim: int) -> Any:
    return lambda _layer, args, out: out + module(args[0], dim)  # (B, N, 3D)


def _add_from_output(module: PromptModule, dim: int) -> Any:
    return lambda _layer, _args, out: out + module(out, dim)  # (B, N, D)
