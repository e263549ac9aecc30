"""Backbones: a pretrained timm ViT by name or from a file, never with random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from noahnas.backbone.families import family_of
from noahnas.backbone.weights import NAMES, SUFFIXES, read_model
from noahnas.errors import BackboneError, unknown

EMBEDDED = {
    "vit-digits": "vit_digits.safetensors",
    "vit-nano": "vit_nano_patch14_56.safetensors",
}
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # of timm


@dataclass(frozen=True)
class Preprocess:
    """How images become the backbone's input: direct resize to `size`, then normalisation."""

    size: tuple[int, int]  # height, width in pixels
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    interpolation: str = "bicubic"  # of the resize, one of `INTERPOLATIONS`


@dataclass(frozen=True)
class Backbone:
    """A pretrained timm ViT, how to feed it, and what identifies it."""

    spec: str  # as given by the user
    model: nn.Module  # without a classifier; fresh at every load
    preprocess: Preprocess
    digest: str  # 16 hex digits over the names, shapes and values of its weights


def load_backbone(spec: str, drop_path: float = 0.0) -> Backbone:
    """Load a pretrained ViT.

    Args:
        spec: an embedded one ("vit-digits"); a timm model name, whose weights come from the hub
            or its cache; a local safetensors, pth or npz file; or NAME@FILE, where the file does
            not tell the architecture by itself.
        drop_path: stochastic-depth rate of the last block; it grows linearly from 0.

    Raises:
        BackboneError: if the name is unknown, or weights are missing, empty or do not fit.
    """
    name, _, path = ("", "", spec) if Path(spec).is_file() else spec.rpartition("@")
    if spec in EMBEDDED:
        with as_file(files("noahnas").joinpath("assets", EMBEDDED[spec])) as asset:
            model = read_model(None, asset, spec, drop_path)
    elif name:
        model = read_model(name, Path(path), spec, drop_path)
    elif spec.endswith(SUFFIXES) or "/" in spec:
        model = read_model(None, Path(spec), spec, drop_path)
    else:
        model = _from_hub(spec, drop_path)
    return describe(model, spec)


def describe(model: nn.Module, spec: str) -> Backbone:
    """Wrap a timm model of your own, with the preprocessing of its config.

    Raises:
        BackboneError: if it is not supported; says why.
    """
    family_of(model, spec)
    config = resolve_model_data_config(model)
    height, width = config["input_size"][1:]
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or (height, width)
    preprocess = Preprocess(
        (int(size[0]), int(size[1])),
        config["mean"],
        config["std"],
        _interpolation(str(config["interpolation"]), spec),
    )
    return Backbone(spec, model, preprocess, weights_digest(model.state_dict()))


def _interpolation(name: str, spec: str) -> str:
    """How a config says that images are resized.

    "random", by which timm varies training images, is bilinear, as in timm's own evaluation.

    Raises:
        BackboneError: if it is none that timm knows.
    """
    if name == "random":
        return "bilinear"
    if name not in INTERPOLATIONS:
        raise BackboneError(f"{spec}: its config: {unknown('interpolation', name, INTERPOLATIONS)}")
    return name


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits over the names, shapes, types and values of a state dict."""
    h = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        h.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        h.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def _from_hub(name: str, drop_path: float) -> nn.Module:
    base = name.partition(".")[0]
    if not timm.is_model(base):
        known = [*EMBEDDED, *timm.list_models(NAMES)]
        message = unknown("backbone", name, known).partition(" (known:")[0]
        raise BackboneError(
            f"{message} (a timm model name, a weights file, or {', '.join(EMBEDDED)})"
        )
    try:
        # With its own number of classes timm loads strictly; without, it lets weights be missing.
        model: Any = timm.create_model(name, pretrained=True, drop_path_rate=drop_path)
        model.reset_classifier(0)
    except Exception as e:  # timm and the hub client raise many kinds
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise BackboneError(
            f"the pretrained weights of {name} cannot be had: {reason}; "
            f"without a network name a local file: --backbone {base}@FILE"
        ) from e
    loaded: nn.Module = model
    return loaded
