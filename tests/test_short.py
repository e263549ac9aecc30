"""Attention over few tokens: the same as PyTorch's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas import Arch, Supernet
from noahnas.backbone import load_backbone, short
from noahnas.backbone.short import ShortAttention, suits
from noahnas.device import autocast

CPU = torch.device("cpu")
HEADS, SIZE = 2, 3
WIDTH = HEADS * SIZE


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def by_torch(own: Tensor, rows: Tensor | None, heads: int, queries: int) -> Tensor:
    """The same by PyTorch's own attention."""
    q, read = own.split((WIDTH, 2 * WIDTH), dim=-1)
    if rows is not None:
        read = torch.cat([read, rows.expand(len(own), -1, -1)], dim=1)
    q = q[:, :queries].unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = read.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("rows", [None, 1, 4], ids=["alone", "rows of all images", "of each image"])
def test_short_attention_is_pytorchs_and_its_gradients_are_those_of_differences(
    queries: int, rows: int | None
) -> None:
    own = drawn(4, 5, 3 * WIDTH)
    more = None if rows is None else drawn(rows, 2, 2 * WIDTH)
    out = ShortAttention.apply(own, more, HEADS, queries)
    torch.testing.assert_close(out, by_torch(own, more, HEADS, queries))
    assert torch.autograd.gradcheck(ShortAttention.apply, (own, more, HEADS, queries))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["prompts of all", "prompts of each image"])
def test_a_supernet_learns_the_same_with_and_without_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, dropout: float
) -> None:
    some = {"ssf": (1, 0, 1, 0), "ia3": (0, 1, 1, 0), "bitfit": (0, 0, 1, 1)}  # of fp32 in bf16
    arch = Arch(lora=(2, 0, 1, 1), vpt=(3, 0, 2, 1), prefix=(1, 1, 0, 2), **some)
    used: list[int] = []
    real = ShortAttention.apply
    monkeypatch.setattr(ShortAttention, "apply", lambda *args: (used.append(1), real(*args))[1])
    found = []
    for longest in (short.LONGEST, {False: 0, True: 0}):
        monkeypatch.setattr(short, "LONGEST", longest)
        model = load_backbone("vit-digits").model
        torch.manual_seed(0)  # in bf16 tensors are off by 0.02, of other draws by up to 0.1
        net = Supernet(model, arch, 5, dropout=dropout).train()
        images = torch.randn(6, 3, 16, 16)
        with autocast(CPU, precision):
            loss = F.cross_entropy(net(images, arch), torch.arange(6) % 5)
        loss.backward()
        found.append({name: p.grad for name, p in net.trainable().items()} | {"loss": loss})
        assert len(used) == 4  # once in each block, and never again
    near = {"fp32": 1e-5, "bf16": 5e-2}[precision]  # bf16 rounds at 4e-3
    for name, first in found[0].items():
        off = (first - found[1][name]).norm() / found[1][name].norm().clamp(min=1e-3)
        assert off < near, name


def test_it_is_not_used_where_nothing_learns_or_attention_does_more() -> None:
    attn = load_backbone("vit-digits").model.blocks[0].attn  # type: ignore[union-attr,index]
    x = torch.zeros(1, 17, 48)
    assert not suits(attn.eval(), x, 17)
    assert suits(attn.train(), x, 17)
    assert not suits(attn, x, 113)
    with autocast(CPU, "bf16"):
        assert suits(attn, x, 113)
    with torch.no_grad():
        assert not suits(attn, x, 17)
    attn.attn_drop.p = 0.1
    assert not suits(attn, x, 17)
    attn.attn_drop.p = 0.0
    attn.q_norm = torch.nn.LayerNorm(12)
    assert not suits(attn, x, 17)
