"""A prompt module whose dim and attributes are drawn: what it does in the mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas.modules.base import Layout, PromptModule, Site, survival
from noahnas.space.schema import Value

TINY = 1e-12  # probability under which a prompt token gets no attention in fp32
Setting = tuple[dict[str, Value], Tensor | None]  # attributes and their probability; None is 1


@dataclass(frozen=True)
class Mixed:
    """One prompt module in one block, under probabilities of its dims and of its attributes."""

    module: PromptModule
    dims: Mapping[int, Tensor]  # dim -> its probability, a scalar tensor
    settings: list[Setting]

    @property
    def sites(self) -> list[Site]:
        """Where the module acts under any of the attributes."""
        found = [site for told, _ in self.settings for site in self.module.sites(**told)]
        return list(dict.fromkeys(found))

    def change(self, site: Site, layout: Layout) -> Callable[[Tensor, Tensor], Tensor]:
        """The mean of what takes the place of a layer's output."""

        def mean(x: Tensor, out: Tensor) -> Tensor:
            total = None
            for told, weight in self.settings:
                acts = site in self.module.sites(**told)
                term = out
                if acts:
                    own = out if torch.is_grad_enabled() else out.clone()  # it may be overwritten
                    term = self.module.mix(site, x, own, self.dims, layout, **told)
                term = term if weight is None else weight * term
                total = term if total is None else total + term
            assert total is not None  # there is always a setting
            return total

        return mean

    def tokens(self, site: Site, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Tokens that the module adds (B, p, D'), and the probability that each is there (p).

        A module that adds tokens does so under all of its attributes; their values are the mean.
        """
        most = max(self.dims)
        rows = [
            self.module(site, x, x, most, layout, **told) * (1 if weight is None else weight)
            for told, weight in self.settings
        ]
        mean = torch.stack(rows).sum(dim=0).expand(len(x), -1, -1)  # (B, p, D')
        return mean, survival(self.dims, most)  # (B, p, D'), (p)


def settings(chances: Mapping[str, Mapping[Value, Tensor | None]]) -> list[Setting]:
    """Every combination of attribute values with its probability, the attributes independent.

    A probability of None is a plain 1.
    """
    found: list[Setting] = []
    for values in product(*(choices.items() for choices in chances.values())):
        weights = [weight for _, weight in values if weight is not None]
        told = dict(zip(chances, (value for value, _ in values), strict=True))
        found.append((told, math.prod(weights[1:], start=weights[0]) if weights else None))
    return found


def blend(
    x: Tensor, count: int, there: Tensor | None, own: tuple[Tensor, Tensor], absent: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens (B, N + p, D) with a block's own prompts put where earlier ones may stay.

    Slot j holds this block's prompt j with the probability that it is there, and where the block
    has none (`absent`) what it held before; its value is the mean of both given that one of them
    is there. The second result (p,) is the probability that one is.

    Args:
        x: the model's `count` tokens and the prompts so far.
        count: tokens of the model's own.
        there: (p,), the probability that each prompt so far is there; None: there are none.
        own: the block's prompts (B, p', D), and the probability that each is there (p',).
        absent: the probability that the block has no prompts.
    """
    new, alive = own
    if there is None:
        return torch.cat([x[:, :count], new], dim=1), alive
    size = max(len(there), len(alive))
    stay = F.pad(there, (0, size - len(there))) * absent  # (p)
    alive = F.pad(alive, (0, size - len(alive)))  # (p)
    old = F.pad(x[:, count:], (0, 0, 0, size - len(there)))  # (B, p, D)
    new = F.pad(new, (0, 0, 0, size - new.shape[1]))  # (B, p, D)
    both = alive + stay  # (p)
    share = (alive / both.clamp_min(TINY))[:, None]  # (p, 1)
    return torch.cat([x[:, :count], share * new + (1 - share) * old], dim=1), both


def log_mask(there: list[Tensor], count: int) -> Tensor | None:
    """(1, 1, 1, N + p): what is added to each key's attention, 0 or log p(there); None if all 0."""
    if not there:
        return None
    return F.pad(torch.cat(there).clamp_min(TINY).log(), (count, 0))[None, None, None]
