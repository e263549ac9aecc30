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
from noahnas.registry import installed, resolve
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


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu, "gelu": gelu, "relu": relu, "silu": lambda x: x / (1 + np.exp(-x)),
}  # fmt: skip


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    out: Array = e / e.sum(-1, keepdims=True)
    return out


class Paper:
    """A plain transformer block of one image's tokens (N, D); papers override what they change."""

    def __init__(self, block: Any, module: Any, **told: Value) -> None:
        self.block, self.module, self.attributes = block, module, told

    def told(self, name: str, paper: Any) -> Any:
        """An attribute of the module; the paper's if it is not given."""
        return self.attributes.get(name, paper)

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

    def log_chances(self, keys: int) -> Array:
        """Of each key, how likely it is there."""
        return np.zeros(keys)

    def attention(self, n: Array) -> Array:
        q, k, v = np.split(self.layer("qkv", n), 3, axis=-1)
        k, v = self.keys_values(k, v)
        heads = []
        for part in np.split(np.arange(WIDTH), HEADS):
            scores = q[:, part] @ k[:, part].T / np.sqrt(WIDTH // HEADS)
            heads.append(softmax(scores + self.log_chances(len(k))) @ v[:, part])
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
        m = Paper.mlp(self, n)
        source = n if self.told("placement", "mlp") == "mlp-parallel" else m
        f = ACTIVATIONS[self.told("activation", "quick_gelu")]
        return m + self.told("scale", 1.0) * self.bottleneck(source, f)


class AdaptFormer(Adapter):
    def mlp(self, n: Array) -> Array:
        bypass = self.bottleneck(n, relu)
        return Paper.mlp(self, n) + self.told("scale", 0.1) * bypass


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
    """NOAH: one pair on the joint layer, without a scale; Hu et al. scale it by alpha / r."""

    def layer(self, name: str, x: Array) -> Array:
        out = super().layer(name, x)
        if name != "qkv":
            return out
        return out + self.told("alpha", DIM) / DIM * x @ (self.w("up") @ self.w("down")).T


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
        return self.told("scale", 1.0) * linear(quick_gelu(out), w("up"), w("up_bias"))

    def attention(self, n: Array) -> Array:
        return super().attention(n) + self.bypass(n, "attention")

    def mlp(self, n: Array) -> Array:
        return super().mlp(n) + self.bypass(n, "mlp")


PAPERS: dict[str, type[Paper]] = {
    "adapter": Adapter, "adapter_plus": AdapterPlus, "adaptformer": AdaptFormer, "bitfit": BitFit,
    "convpass": Convpass, "ia3": IA3, "lora": LoRA, "prefix": Prefix, "ssf": SSF, "vpt": VPT,
}  # fmt: skip
OFF = ("bitfit", "ia3", "ssf")  # there or not


OTHERS: list[tuple[str, dict[str, Value]]] = [  # than the papers' own attributes
    ("adapter", {"scale": 0.4}),
    ("adapter", {"activation": "gelu"}),
    ("adapter", {"activation": "relu"}),
    ("adapter", {"activation": "silu"}),
    ("adapter", {"placement": "mlp-parallel", "scale": 3.0}),
    ("adaptformer", {"scale": 0.7}),
    ("convpass", {"scale": 0.4}),
    ("lora", {"alpha": 8.0}),
]


def network(name: str, **told: Value) -> tuple[Any, Arch]:
    """A random network in double precision, whose last block has the module."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=6, patch_size=2, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
        global_pool="avg",
    )  # fmt: skip
    for p in vit.parameters():
        p.data.add_(torch.randn(p.shape) * 0.2)
    values = {key: (value, value) for key, value in told.items()}
    arch = Arch(**{name: {"dim": (0, 1 if name in OFF else DIM), **values}})
    return awake(Supernet(vit, arch, 3)).double().eval(), arch


def tokens(net: Any, run: Callable[[torch.Tensor], Any]) -> tuple[Array, Array]:
    """What enters the last block, and what reaches the final norm, of one image that is run."""
    seen: dict[str, torch.Tensor] = {}
    net.backbone.blocks[0].register_forward_hook(lambda _m, _a, out: seen.update(first=out))
    net.backbone.norm.register_forward_pre_hook(lambda _m, args: seen.update(last=args[0]))
    run(torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double())
    return seen["first"][0].detach().numpy(), seen["last"][0].detach().numpy()


def test_every_module_has_a_forward_written_from_its_paper() -> None:
    assert set(PAPERS) == set(installed("noahnas.modules"))


@pytest.mark.parametrize("name", PAPERS)
def test_a_module_computes_what_its_paper_says(name: str) -> None:
    net, arch = network(name)
    first, last = tokens(net, lambda x: net(x, arch))
    block = net.backbone.blocks[1]
    np.testing.assert_allclose(PAPERS[name](block, net.prompts[name][1])(first), last, atol=1e-10)
    assert np.abs(Paper(block, None)(first) - last).max() > 1e-2


@pytest.mark.parametrize(("name", "told"), OTHERS, ids=str)
def test_a_module_computes_what_its_attributes_say(name: str, told: dict[str, Value]) -> None:
    net, arch = network(name, **told)
    first, last = tokens(net, lambda x: net(x, arch))
    block, module = net.backbone.blocks[1], net.prompts[name][1]
    if "placement" in told:
        module = module.placed[told["placement"]]
    np.testing.assert_allclose(PAPERS[name](block, module, **told)(first), last, atol=1e-10)
    assert np.abs(PAPERS[name](block, module)(first) - last).max() > 1e-2


def test_every_attribute_that_is_a_number_is_tried_at_another_one() -> None:
    for name in PAPERS:
        declared = resolve("noahnas.modules", name, "module").attributes
        numbers = {key for key, attribute in declared.items() if not attribute.choices}
        assert numbers <= {key for of, told in OTHERS if of == name for key in told}


@pytest.mark.parametrize("paper", [Prefix, VPT])
def test_a_token_that_may_be_there_takes_attention_by_its_chance(paper: type[Paper]) -> None:
    """Under a mixture of dims: exp(score) of its key is multiplied by the chance."""
    name = next(key for key, found in PAPERS.items() if found is paper)
    chances = {0: 0.1, 1: 0.2, DIM: 0.7}
    there = np.array([0.9, *[0.7] * (DIM - 1)])  # of each token

    class Mixed(paper):  # type: ignore[valid-type, misc]
        def log_chances(self, keys: int) -> Array:
            own = np.zeros(keys)
            own[slice(0, DIM) if name == "prefix" else slice(keys - DIM, keys)] = np.log(there)
            return own

    net, _ = network(name)
    drawn = {dim: torch.tensor(p).double() for dim, p in chances.items()}
    blocks = [{0: torch.ones(()).double()}, drawn]
    first, last = tokens(net, lambda x: net.mixture(x, {name: blocks}))
    block, module = net.backbone.blocks[1], net.prompts[name][1]
    last = last[: len(first)]
    np.testing.assert_allclose(Mixed(block, module)(first), last, atol=1e-7)
    assert np.abs(paper(block, module)(first) - last).max() > 1e-2


def test_convpass_beside_attention_alone_leaves_the_mlp() -> None:
    net, arch = network("convpass", placement="attention")
    first, last = tokens(net, lambda x: net(x, arch))

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
