"""A backbone is fed as its own config says, wherever its images come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from timm.data.transforms import str_to_pil_interp

import noahnas
from noahnas import Arch
from noahnas.backbone import INTERPOLATIONS, describe, load_backbone
from noahnas.backbone.backbone import EMBEDDED
from noahnas.data import Dataset, LoadOptions, load_data
from noahnas.data.dataset import SPLITS
from noahnas.data.image import read_pixels
from noahnas.data.store import from_items
from noahnas.data.streams import stream_items
from noahnas.errors import BackboneError, DataError
from noahnas.inputs import Inputs
from noahnas.pipeline import start
from noahnas.recipe import Recipe

from .conftest import draw_images
from .test_sources import arrays, save, shards, streams

SIZE = (11, 7)  # height, width
HALF, NONE, ALL = (0.5,) * 3, (0.0,) * 3, (1.0,) * 3
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONFIGS = [  # as published
    ("vit_base_patch16_224.orig_in21k", (224, 224), HALF, HALF, "bicubic"),
    ("vit_base_patch16_clip_224.openai", (224, 224), *CLIP, "bicubic"),
    ("vit_base_patch16_siglip_224.webli", (224, 224), HALF, HALF, "bicubic"),
    ("vit_small_patch14_dinov2.lvd142m", (518, 518), *IMAGENET, "bicubic"),
    ("vit_small_patch16_dinov3.lvd1689m", (256, 256), *IMAGENET, "bicubic"),
    ("beit_base_patch16_224.in22k_ft_in22k", (224, 224), HALF, HALF, "bicubic"),
    ("eva02_base_patch14_224.mim_in22k", (224, 224), *CLIP, "bicubic"),
    ("vit_base_patch16_224_miil.in21k", (224, 224), NONE, ALL, "bilinear"),
    ("vit_small_patch16_lingbot.robbyant", (512, 512), *IMAGENET, "bilinear"),
]


def small(kind: str, **changes: Any) -> Any:
    """A model of that name, its image size and config its own, with few weights."""
    return timm.create_model(kind, embed_dim=16, depth=1, num_heads=2, num_classes=0, **changes)


@pytest.mark.parametrize(
    ("kind", "size", "mean", "std", "interpolation"), CONFIGS, ids=[kind for kind, *_ in CONFIGS]
)
def test_images_are_fed_as_the_model_s_config_says(
    kind: str,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    interpolation: str,
) -> None:
    found = describe(small(kind), kind).preprocess
    assert found.size == size
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)
    assert found.interpolation == interpolation


def test_a_model_made_for_another_size_is_fed_with_that() -> None:
    made = small("vit_base_patch16_224", img_size=(32, 48))
    assert describe(made, "wide").preprocess.size == (32, 48)


@pytest.mark.parametrize("name", [*INTERPOLATIONS, "random"])
def test_every_interpolation_of_timm_is_known_and_a_random_one_is_bilinear(name: str) -> None:
    model = small("vit_base_patch16_224")
    model.pretrained_cfg = {"interpolation": name}
    expected = "bilinear" if name == "random" else name
    assert describe(model, "mine").preprocess.interpolation == expected
    assert str_to_pil_interp(expected) == Image.Resampling[expected.upper()]


def test_an_unknown_interpolation_is_refused_by_name() -> None:
    model = small("vit_base_patch16_224")
    model.pretrained_cfg = {"interpolation": "bicubical"}
    with pytest.raises(BackboneError, match="mine: its config: unknown interpolation 'bicubical'"):
        describe(model, "mine")
    with pytest.raises(DataError, match="did you mean 'bicubic'"):
        LoadOptions(SIZE, interpolation="bicubical")


def from_folder(tmp_path: Path) -> Callable[[LoadOptions], Dataset]:
    draw_images(tmp_path, ["cat", "dog"], 6)
    return lambda options: load_data(str(tmp_path), options)


def from_npz(tmp_path: Path) -> Callable[[LoadOptions], Dataset]:
    spec = save(tmp_path / "set.npz", **arrays())
    return lambda options: load_data(spec, options)


def from_shards(tmp_path: Path) -> Callable[[LoadOptions], Dataset]:
    pytest.importorskip("webdataset", reason="the extra 'readers' is not installed")
    spec = shards(tmp_path)
    return lambda options: load_data(spec, options)


def from_stream(_: Path) -> Callable[[LoadOptions], Dataset]:
    def load(options: LoadOptions) -> Dataset:
        found = streams()
        items = {s: stream_items(f"set {s}", found[s], "v1", options) for s in found}
        return from_items("set", ["a", "b"], items, options)

    return load


SOURCES: dict[str, tuple[Callable[[Path], Callable[[LoadOptions], Dataset]], tuple[int, int]]] = {
    "folder": (from_folder, (20, 24)),  # and the size that its images have
    "npz": (from_npz, (9, 9)),
    "npz, on disk": (from_npz, (9, 9)),
    "shards": (from_shards, (12, 12)),
    "stream": (from_stream, (12, 12)),
    "embedded": (lambda _: lambda options: load_data("digits", options), (8, 8)),
    "rendered": (lambda _: lambda options: load_data("count", options), (64, 64)),
    "micro-VTAB": (lambda _: lambda options: load_data("micro-vtab:digits", options), (48, 48)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_resizes_as_it_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit what Pillow makes of each image; and what is kept of one is no other's."""
    monkeypatch.setenv("NOAHNAS_CACHE", str(tmp_path / "cache"))
    if name == "npz, on disk":
        monkeypatch.setattr("noahnas.data.arrays.LARGE", 100)
    (tmp_path / "set").mkdir()
    make, size = SOURCES[name]
    load = make(tmp_path / "set")
    whole = load(LoadOptions(size))
    for interpolation in ("bicubic", "bilinear", "nearest", "bicubic"):
        data = load(LoadOptions(SIZE, interpolation=interpolation))
        for split in SPLITS:
            images, originals = data.split(split).images, whole.split(split).images
            for image, original in list(zip(images, originals, strict=True))[:5]:
                picture = Image.fromarray(original.permute(1, 2, 0).numpy())
                small = picture.resize(SIZE[::-1], Image.Resampling[interpolation.upper()])
                assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(np.array(small)))


@pytest.fixture
def bilinear(tmp_path: Path) -> Path:
    """The embedded backbone, whose config names another interpolation than its own."""
    with safe_open(str(files("noahnas") / "assets" / EMBEDDED["vit-digits"]), "pt") as f:
        told = json.loads(f.metadata()["timm"])
        weights = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
    assert told["pretrained_cfg"]["interpolation"] == "bicubic"
    told["pretrained_cfg"]["interpolation"] = "bilinear"
    path = tmp_path / "bilinear.safetensors"
    save_file(weights, path, {"timm": json.dumps(told)})
    return path


def test_a_run_trains_and_predicts_by_the_backbone_s_interpolation(
    bilinear: Path, tmp_path: Path, recipe: Recipe
) -> None:
    draw_images(tmp_path / "set", ["ant", "bee"], 12)
    data, arch = str(tmp_path / "set"), Arch(lora=(1, 0, 0, 1))
    digests = {}
    for backbone in ("vit-digits", str(bilinear)):
        out = tmp_path / f"run-{len(digests)}"
        start(out, Inputs(data, backbone, recipe, arch=arch, probe=False))
        digests[backbone] = json.loads((out / "run.json").read_text())["digests"]["data"]
    for backbone, digest in digests.items():
        interpolation = load_backbone(backbone).preprocess.interpolation
        assert digest == load_data(data, LoadOptions((16, 16), interpolation=interpolation)).digest
    assert len(set(digests.values())) == 2
    tuned = noahnas.load(tmp_path / "run-1")
    assert tuned.preprocess.interpolation == "bilinear"
    image = tmp_path / "set" / "ant" / "000.png"
    pixels = read_pixels(image, (16, 16), "bilinear")  # (16, 16, 3)
    x = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    (found,) = tuned.predict([image])
    assert found.probability == pytest.approx(tuned(x).softmax(1).max().item(), abs=1e-6)
