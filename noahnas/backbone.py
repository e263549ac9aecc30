"""Backbones: a pretrained timm ViT by name or from a file, never with random weights."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.data.config import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from noahnas.errors import BackboneError, unknown

EMBEDDED = {
    "vit-digits": "vit_digits.safetensors",
    "vit-nano": "vit_nano_patch14_56.safetensors",
}
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
HEAD_WIDTH = 64  # of every ViT in timm whose head count a file does not tell
_HEAD = ("head.", "fc_norm.", "head_dist.")
_TOLD = ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads")
_OPTIONAL = ("mlp_ratio", "qkv_bias", "init_values", "class_token", "no_embed_class", "reg_tokens")
_ALLOWED_ARGS = frozenset((*_TOLD, *_OPTIONAL, "pre_norm"))


@dataclass(frozen=True)
class Preprocess:
    """How images become the backbone's input: direct resize to `size`, then normalisation."""

    size: tuple[int, int]  # height, width in pixels
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Backbone:
    """A pretrained timm ViT, how to feed it, and what identifies it."""

    spec: str  # as given by the user
    model: nn.Module  # without a classifier; fresh at every load
    preprocess: Preprocess
    digest: str  # 16 hex digits over the names, shapes and values of its weights


def load_backbone(spec: str, drop_path: float = 0.0) -> Backbone:
    """Load a pretrained ViT with a class token.

    Args:
        spec: an embedded one ("vit-digits"); a timm model name, whose weights come from the hub
            or its cache; a local safetensors, pth or npz file; or NAME@FILE, where the file does
            not tell the architecture by itself.
        drop_path: stochastic-depth rate of the last block; it grows linearly from 0.

    Raises:
        BackboneError: if the name is unknown, or weights are missing, empty or do not fit.
    """
    name, _, path = spec.rpartition("@")
    if spec in EMBEDDED:
        with as_file(files("noahnas").joinpath("assets", EMBEDDED[spec])) as asset:
            model = _from_file(None, asset, spec, drop_path)
    elif name:
        model = _from_file(name, Path(path), spec, drop_path)
    elif spec.endswith(SUFFIXES) or "/" in spec:
        model = _from_file(None, Path(spec), spec, drop_path)
    else:
        model = _from_hub(spec, drop_path)
    return describe(model, spec)


def describe(model: nn.Module, spec: str) -> Backbone:
    """Wrap a timm model of your own, with the preprocessing of its config.

    Raises:
        BackboneError: if it is no ViT with a class token.
    """
    check_supported(model, spec)
    config = resolve_model_data_config(model)
    height, width = config["input_size"][1:]
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or (height, width)
    preprocess = Preprocess((int(size[0]), int(size[1])), config["mean"], config["std"])
    return Backbone(spec, model, preprocess, weights_digest(model.state_dict()))


def check_supported(model: nn.Module, spec: str) -> None:
    """Raise BackboneError unless `model` is a timm ViT whose class token is read at the end."""
    if not isinstance(model, VisionTransformer):
        raise BackboneError(
            f"{spec}: {type(model).__name__} is not supported; use a timm VisionTransformer"
        )
    if not model.has_class_token or model.global_pool != "token":
        raise BackboneError(f"{spec}: the model does not read a class token (global_pool='token')")
    if hasattr(model, "head_dist"):
        raise BackboneError(f"{spec}: a distilled model has a second head, which is not supported")
    for block in model.blocks:
        if not (hasattr(getattr(block, "attn", None), "qkv") and hasattr(block, "drop_path2")):
            kind = type(block).__name__
            raise BackboneError(f"{spec}: its {kind} blocks are not supported; use timm's Block")


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits over the names, shapes, types and values of a state dict."""
    h = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        h.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        h.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


# --- from the hub ----------------------------------------------------------------------------


def _from_hub(name: str, drop_path: float) -> nn.Module:
    base = name.partition(".")[0]
    if not timm.is_model(base):
        known = [*EMBEDDED, *timm.list_models("*vit*")]
        message = unknown("backbone", name, known).partition(" (known:")[0]
        raise BackboneError(
            f"{message} (a timm model name, a weights file, or {', '.join(EMBEDDED)})"
        )
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=True, num_classes=0, drop_path_rate=drop_path
        )
    except Exception as e:  # timm and the hub client raise many kinds
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise BackboneError(
            f"the pretrained weights of {name} cannot be had: {reason}; "
            f"without a network name a local file: --backbone {base}@FILE"
        ) from e
    return model


# --- from a file -----------------------------------------------------------------------------


def _from_file(name: str | None, path: Path, spec: str, drop_path: float) -> nn.Module:
    if not path.is_file():
        raise BackboneError(f"{spec}: no such file: {path}")
    if path.stat().st_size == 0:
        raise BackboneError(f"{spec}: {path} is empty")
    if path.suffix == ".npz":
        return _from_npz(name, path, spec, drop_path)
    state, told = _read_state(path, spec)
    if name:
        model = _create(name, spec, drop_path)
        state = _filtered(state, model, spec)
    else:
        kwargs, config = told if told else (_infer(state, spec), {})
        model = _vision_transformer(kwargs, spec, drop_path)
        if config:
            model.pretrained_cfg = config  # type: ignore[assignment]  # timm reads a plain dict
    _load_strictly(model, state, spec)
    return model


def _create(name: str, spec: str, drop_path: float) -> nn.Module:
    if not timm.is_model(name.partition(".")[0]):
        message = unknown("backbone", name, timm.list_models("*vit*")).partition(" (known:")[0]
        raise BackboneError(f"{spec}: {message}")
    model: nn.Module = timm.create_model(name, num_classes=0, drop_path_rate=drop_path)
    return model


def _vision_transformer(kwargs: Mapping[str, Any], spec: str, drop_path: float) -> nn.Module:
    odd = sorted(set(kwargs) - _ALLOWED_ARGS)
    if odd:
        raise BackboneError(f"{spec}: the file asks for unknown model arguments {', '.join(odd)}")
    try:
        model: nn.Module = VisionTransformer(
            **{**kwargs, "num_classes": 0, "drop_path_rate": drop_path}
        )
    except Exception as e:  # whatever a foreign file's arguments provoke
        raise BackboneError(f"{spec}: the file's model arguments are unusable: {e}") from e
    return model


State = dict[str, Tensor]
Told = tuple[dict[str, Any], dict[str, Any]]  # constructor arguments, preprocessing config


def _read_state(path: Path, spec: str) -> tuple[State, Told | None]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as f:
                state = {key: f.get_tensor(key).float() for key in f.keys()}  # noqa: SIM118
                told = json.loads((f.metadata() or {}).get("timm", "null"))
            return _stripped(state), (told["kwargs"], told["pretrained_cfg"]) if told else None
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError) as e:
        raise BackboneError(f"{spec}: {path} cannot be read as weights: {e}") from e
    except Exception as e:  # pickle's own errors
        raise BackboneError(f"{spec}: {path} is not a file of plain weights (tensors alone)") from e
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    tensors = loaded if isinstance(loaded, dict) else {}
    state = {str(k): v.float() for k, v in tensors.items() if isinstance(v, Tensor)}
    return _stripped(state), None


def _stripped(state: State) -> State:
    """Drop a wrapper's prefix where every key has it."""
    for prefix in ("module.", "backbone.", "model."):
        if state and all(key.startswith(prefix) for key in state):
            return _stripped({key.removeprefix(prefix): v for key, v in state.items()})
    return state


def _filtered(state: State, model: nn.Module, spec: str) -> State:
    """The state in timm's own names (DINOv2, CLIP and others), fitted to the model's image size."""
    try:
        vit: Any = model
        return dict(checkpoint_filter_fn(state, vit))
    except Exception as e:  # a foreign layout fails in many ways
        raise BackboneError(f"{spec}: the file does not fit the model: {e!r}") from e


def _infer(state: State, spec: str) -> dict[str, Any]:
    """Constructor arguments of a plain timm ViT, read off the shapes of its weights."""
    need = ("patch_embed.proj.weight", "pos_embed", "cls_token", "blocks.0.mlp.fc1.weight")
    absent = [key for key in need if key not in state]
    if absent:
        raise BackboneError(
            f"{spec}: the file lacks {', '.join(absent)}: it is no timm ViT with a class token; "
            "name its architecture: --backbone NAME@FILE"
        )
    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    if width % HEAD_WIDTH or grid**2 + 1 != state["pos_embed"].shape[1]:
        raise BackboneError(
            f"{spec}: the number of heads or the image size cannot be told from the weights; "
            "name the architecture: --backbone NAME@FILE"
        )
    numbers = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))]
    return {
        "img_size": grid * patch,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": max(numbers) + 1,
        "num_heads": width // HEAD_WIDTH,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in state else None,
        "pre_norm": "norm_pre.weight" in state,
    }


def _load_strictly(model: nn.Module, state: State, spec: str) -> None:
    state = {k: v for k, v in state.items() if not k.startswith(_HEAD)}
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(_HEAD)}
    missing = sorted(set(wanted) - set(state))
    surplus = sorted(set(state) - set(wanted) - {"mask_token"})
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    faults = (
        _told("lacks", missing) + _told("has the unknown", surplus) + _told("does not fit:", shapes)
    )
    if faults:
        raise BackboneError(f"{spec}: the file {'; it '.join(faults)}")
    bad = [k for k in wanted if not torch.isfinite(state[k]).all()]
    if bad:
        raise BackboneError(
            f"{spec}: the file {'; it '.join(_told('has NaN or infinity in', bad))}"
        )
    model.load_state_dict({k: state[k] for k in wanted}, strict=False)


def _told(verb: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{verb} {', '.join(names[:3])}{more}"] if names else []


def _from_npz(name: str | None, path: Path, spec: str, drop_path: float) -> nn.Module:
    """A JAX checkpoint of the original ViT; read by timm's own converter, then checked."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            shapes = {key: archive[key].shape for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as e:
        raise BackboneError(f"{spec}: {path} cannot be read as weights: {e}") from e
    prefix = "opt/target/" if any(key.startswith("opt/target/") for key in shapes) else ""
    shapes = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
    if "embedding/kernel" not in shapes or "cls" not in shapes:
        raise BackboneError(
            f"{spec}: {path} lacks embedding/kernel or cls: it is no ViT checkpoint"
        )
    model = (
        _create(name, spec, drop_path)
        if name
        else _vision_transformer(_infer_npz(shapes, spec), spec, drop_path)
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for value in model.state_dict().values():
        value.fill_(float("nan"))  # whatever the converter leaves out stays visible
    try:
        model.load_pretrained(str(path))  # type: ignore[operator]
    except Exception as e:  # KeyError, AssertionError, RuntimeError: the file does not fit
        raise BackboneError(f"{spec}: {path} does not fit the model: {e!r}") from e
    left = [k for k, v in model.state_dict().items() if not torch.isfinite(v).all()]
    unset = [key for key in left if not key.startswith(_HEAD)]
    if unset:
        raise BackboneError(f"{spec}: the file {'; it '.join(_told('lacks', unset))}")
    for key in left:
        model.state_dict()[key].copy_(before[key])
    return model


def _infer_npz(shapes: Mapping[str, tuple[int, ...]], spec: str) -> dict[str, Any]:
    blocks = [int(m[1]) for k in shapes if (m := re.match(r"Transformer/encoderblock_(\d+)/", k))]
    try:
        patch, _, channels, width = shapes["embedding/kernel"]
        first = "Transformer/encoderblock_0"
        heads = next(
            shapes[key][1]
            for key in shapes
            if re.fullmatch(rf"{first}/MultiHeadDotProductAttention_\d/query/kernel", key)
        )
        hidden = next(
            shapes[key][1]
            for key in shapes
            if re.fullmatch(rf"{first}/MlpBlock_\d/Dense_0/kernel", key)
        )
        tokens = shapes["Transformer/posembed_input/pos_embedding"][1]
    except (KeyError, StopIteration, ValueError):
        raise BackboneError(f"{spec}: the file is no complete ViT checkpoint") from None
    return {
        "img_size": round((tokens - 1) ** 0.5) * patch,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": max(blocks) + 1,
        "num_heads": heads,
        "mlp_ratio": hidden / width,
    }
