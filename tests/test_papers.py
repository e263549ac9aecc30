"""Each module against a NumPy forward written from its paper, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf
from timm.models.vision_transformer import VisionTransformer

from noahnas import Arch, Supernet
from noahnas.modules import Layout
from noahnas.registry import installed
from noahnas.space.schema import Value

from .conftest import awake

Array = NDArray[np.float64]
DEPTH, WIDTH, HEADS, GRID = 2, 16, 2, 3
DIM = 3


def weight(module: Any, name: str) -> Array:
    for part in name.split("."):
        module = (
            module[part] if isinstance(module, torch.nn.ParameterDict) else getattr(module, part)
        )
    found: Array = module.detach().numpy()
    return found


def linear(x: Array, w: Array, b: Array) -> Array:
    return x @ w.T + b


def norm(layer: Any, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    out: Array = scaled * weight(layer, "weight") + weight(layer, "bias")
    return out


def gelu(x: Array) -> Array:
    out: Array = x * (1 + erf(x / np.sqrt(2))) / 2
    return out


def quick_gelu(x: Array) -> Array:
    return x / (1 + np.exp(-1.702 * x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    out: Array = e / e.sum(-1, keepdims=True)
    return out


class Paper:
    """A plain transformer block of one image's tokens (N, D); papers override what they change."""

    def __init__(self, block: Any, module: Any) -> None:
        self.block, self.module = block, module

    def w(self, name: str) -> Array:
        return weight(self.module, name)

    def layer(self, name: str, x: Array) -> Array:
        """One of the block's six layers."""
        attention, mlp = ("qkv", "proj"), ("fc1", "fc2")
        home = (
            self.block.attn if name in attention else self.block.mlp if name in mlp else self.block
        )
        layer = getattr(home, name)
        if name.startswith("norm"):
            return norm(layer, x)
        return linear(x, weight(layer, "weight"), weight(layer, "bias"))

    def keys_values(self, k: Array, v: Array) -> tuple[Array, Array]:
        return k, v

    def hidden(self, h: Array) -> Array:
        return h

    def attention(self, n: Array) -> Array:
        q, k, v = np.split(self.layer("qkv", n), 3, axis=-1)
        k, v = self.keys_values(k, v)
        heads = []
        for part in np.split(np.arange(WIDTH), HEADS):
            scores = q[:, part] @ k[:, part].T / np.sqrt(WIDTH // HEADS)
            heads.append(softmax(scores) @ v[:, part])
        return self.layer("proj", np.concatenate(heads, axis=-1))

    def mlp(self, n: Array) -> Array:
        return self.layer("fc2", self.hidden(gelu(self.layer("fc1", n))))

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.layer("norm1", x))
        return x + self.mlp(self.layer("norm2", x))


class Adapter(Paper):
    """Houlsby et al.: after the MLP, within its residual."""

    def bottleneck(self, x: Array, f: Callable[[Array], Array]) -> Array:
        h = f(linear(x, self.w("down"), self.w("down_bias")))
        return linear(h, self.w("up"), self.w("up_bias"))

    def mlp(self, n: Array) -> Array:
        m = super().mlp(n)
        return m + self.bottleneck(m, quick_gelu)


class AdaptFormer(Adapter):
    def mlp(self, n: Array) -> Array:
        return Paper.mlp(self, n) + 0.1 * self.bottleneck(n, lambda h: np.maximum(h, 0))


class AdapterPlus(Adapter):
    mlp = Paper.mlp

    def __call__(self, x: Array) -> Array:
        x = Paper.__call__(self, x)
        return x + self.w("scale") * self.bottleneck(x, gelu)


class BitFit(Paper):
    def layer(self, name: str, x: Array) -> Array:
        return super().layer(name, x) + self.w(f"bias.{name}")


class SSF(Paper):
    def layer(self, name: str, x: Array) -> Array:
        return self.w(f"scale.{name}") * super().layer(name, x) + self.w(f"shift.{name}")


class IA3(Paper):
    def keys_values(self, k: Array, v: Array) -> tuple[Array, Array]:
        return self.w("key") * k, self.w("value") * v

    def hidden(self, h: Array) -> Array:
        return self.w("hidden") * h


class LoRA(Paper):
    """NOAH: one pair on the joint layer, without a scale."""

    def layer(self, name: str, x: Array) -> Array:
        out = super().layer(name, x)
        return out + x @ (self.w("up") @ self.w("down")).T if name == "qkv" else out


class Prefix(Paper):
    def keys_values(self, k: Array, v: Array) -> tuple[Array, Array]:
        return np.vstack([self.w("keys"), k]), np.vstack([self.w("values"), v])


class VPT(Paper):
    def __call__(self, x: Array) -> Array:
        return super().__call__(np.vstack([x, self.w("tokens")]))[: len(x)]


class Convpass(Paper):
    """The class token is an image of one pixel; the patches are one of GRID × GRID."""

    def bypass(self, n: Array, branch: str) -> Array:
        def w(name: str) -> Array:
            return self.w(f"{branch}.{name}")

        h = quick_gelu(linear(n, w("down"), w("down_bias")))
        out = np.zeros_like(h)
        for image, first in ((h[:1].reshape(1, 1, DIM), 0), (h[1:].reshape(GRID, GRID, DIM), 1)):
            rows, columns, _ = image.shape
            for r in range(rows):
                for c in range(columns):
                    total = w("conv_bias").copy()
                    for dr in (-1, 0, 1):
                        for dc in (-1, 0, 1):
                            if 0 <= r + dr < rows and 0 <= c + dc < columns:
                                total += w("conv")[:, :, dr + 1, dc + 1] @ image[r + dr, c + dc]
                    out[first + r * columns + c] = total
        return linear(quick_gelu(out), w("up"), w("up_bias"))

    def attention(self, n: Array) -> Array:
        return super().attention(n) + self.bypass(n, "attention")

    def mlp(self, n: Array) -> Array:
        return super().mlp(n) + self.bypass(n, "mlp")


PAPERS: dict[str, type[Paper]] = {
    "adapter": Adapter, "adapter_plus": AdapterPlus, "adaptformer": AdaptFormer, "bitfit": BitFit,
    "convpass": Convpass, "ia3": IA3, "lora": LoRA, "prefix": Prefix, "ssf": SSF, "vpt": VPT,
}  # fmt: skip
OFF = ("bitfit", "ia3", "ssf")  # there or not


def network(name: str, **told: tuple[Value, ...]) -> tuple[Any, Arch]:
    """A random network in double precision, whose last block has the module."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=6, patch_size=2, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
        global_pool="avg",
    )  # fmt: skip
    for p in vit.parameters():
        p.data.add_(torch.randn(p.shape) * 0.2)
    arch = Arch(**{name: {"dim": (0, 1 if name in OFF else DIM), **told}})
    return awake(Supernet(vit, arch, 3)).double().eval(), arch


def tokens(net: Any, arch: Arch) -> tuple[Array, Array]:
    """What enters the last block, and what reaches the final norm, of one image."""
    seen: dict[str, torch.Tensor] = {}
    net.backbone.blocks[0].register_forward_hook(lambda _m, _a, out: seen.update(first=out))
    net.backbone.norm.register_forward_pre_hook(lambda _m, args: seen.update(last=args[0]))
    net(torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double(), arch)
    return seen["first"][0].detach().numpy(), seen["last"][0].detach().numpy()


def test_every_module_has_a_forward_written_from_its_paper() -> None:
    assert set(PAPERS) == set(installed("noahnas.modules"))


@pytest.mark.parametrize("name", PAPERS)
def test_a_module_computes_what_its_paper_says(name: str) -> None:
    net, arch = network(name)
    first, last = tokens(net, arch)
    block = net.backbone.blocks[1]
    np.testing.assert_allclose(PAPERS[name](block, net.prompts[name][1])(first), last, atol=1e-10)
    assert np.abs(Paper(block, None)(first) - last).max() > 1e-2


def test_convpass_beside_attention_alone_leaves_the_mlp() -> None:
    net, arch = network("convpass", placement=(None, "attention"))
    first, last = tokens(net, arch)

    class Attention(Convpass):
        mlp = Paper.mlp

    module = net.prompts["convpass"][1]
    np.testing.assert_allclose(Attention(net.backbone.blocks[1], module)(first), last, atol=1e-10)


def test_convpass_treats_prompts_as_images_of_one_pixel() -> None:
    """They come after the patches, and the grid is still that of the patches."""
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=6, patch_size=2, embed_dim=WIDTH, depth=1, num_heads=HEADS)
    both = Arch(convpass=(DIM,), vpt=(2,))
    net: Any = awake(Supernet(vit, both, 3)).eval()
    images = torch.randn(1, 3, 6, 6)
    module = net.prompts["convpass"][0]
    seen: list[torch.Tensor] = []
    module.register_forward_hook(lambda _m, args, out: seen.append(out - args[2]))
    net(images, both)
    assert seen[0].shape == (1, 1 + GRID**2 + 2, WIDTH)
    read = net.backbone.blocks[0].norm1(net.prompts["vpt"][0].tokens[1:2])[None]
    told = module.complete({})
    pixel = module("attention", read, torch.zeros_like(read), DIM, Layout(0, 1, 1), **told)
    torch.testing.assert_close(pixel, seen[0][:, -1:], rtol=0, atol=1e-5)
