"""Weights from a local file: safetensors, pth and the original ViT's npz; whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import beit, eva, vision_transformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from noahnas.errors import BackboneError, unknown

_LOG = logging.getLogger(__name__)
NAMES = ["*vit*", "deit*", "eva*", "beit*"]  # timm models among which a near miss is sought
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
HEAD_WIDTH = 64  # of every ViT in timm whose head count a file does not tell
_HEAD = ("head.", "head_dist.")
_TOLD = ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads")
_OPTIONAL = ("mlp_ratio", "qkv_bias", "init_values", "class_token", "no_embed_class", "reg_tokens")
State = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
_ALLOWED_ARGS = frozenset((*_TOLD, *_OPTIONAL, "pre_norm"))


def read_model(name: str | None, path: Path, spec: str, drop_path: float) -> nn.Module:
    """A ViT with the weights of a file.

    Args:
        name: the timm model that the weights are for; None where the file tells or shows it.
        path: a safetensors, pth or npz file.
        spec: what the user gave, for messages.
        drop_path: stochastic-depth rate of the last block.

    Raises:
        BackboneError: if the file is missing, empty, no plain weights, or does not fit.
    """
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
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        model = _vision_transformer(kwargs, shapes, spec, drop_path)
        if not config:
            _LOG.warning("%s does not tell its normalisation; ImageNet's is assumed", path)
        else:
            model.pretrained_cfg = config  # type: ignore[assignment]  # timm reads a plain dict
    _load_strictly(model, state, spec)
    return model


def _create(name: str, spec: str, drop_path: float) -> nn.Module:
    if not timm.is_model(name.partition(".")[0]):
        message = unknown("backbone", name, timm.list_models(NAMES)).partition(" (known:")[0]
        raise BackboneError(f"{spec}: {message}")
    model: nn.Module = timm.create_model(name, num_classes=0, drop_path_rate=drop_path)
    return model


def _vision_transformer(
    kwargs: Mapping[str, Any], held: Shapes, spec: str, drop_path: float
) -> nn.Module:
    """A ViT by a file's arguments; none that is twice as large as the weights in the file."""
    odd = sorted(set(kwargs) - _ALLOWED_ARGS)
    if odd:
        raise BackboneError(f"{spec}: the file asks for unknown model arguments {', '.join(odd)}")
    try:
        if kwargs.get("depth", 12) > len(held):
            raise ValueError(f"{kwargs['depth']} blocks of {len(held)} tensors")  # noqa: TRY301
        given = {**kwargs, "num_classes": 0, "drop_path_rate": drop_path, "weight_init": "skip"}
        with torch.device("meta"):
            needs = sum(weight.numel() for weight in VisionTransformer(**given).parameters())
        has = sum(math.prod(shape) for shape in held.values())
        if needs > 2 * has:  # of a file that merely lacks some, they are named later
            raise ValueError(f"they ask for {needs:,} weights, the file holds {has:,}")  # noqa: TRY301
        model: nn.Module = VisionTransformer(**given)
    except Exception as e:  # whatever a foreign file's arguments provoke
        raise BackboneError(f"{spec}: the file's model arguments are unusable: {e}") from e
    return model


Told = tuple[dict[str, Any], dict[str, Any]]  # constructor arguments, preprocessing config


def _read_state(path: Path, spec: str) -> tuple[State, Told | None]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as f:
                state = {key: f.get_tensor(key).float() for key in f.keys()}  # noqa: SIM118
                told = json.loads((f.metadata() or {}).get("timm", "null"))
            return _stripped(state), (dict(told["kwargs"]), _config(told)) if told else None
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


def _config(told: Mapping[str, Any]) -> dict[str, Any]:
    """How a file says that images are fed to its model.

    Raises:
        ValueError: if it does not say it in numbers.
    """
    config = dict(told["pretrained_cfg"])
    for key in ("mean", "std"):
        values = config.get(key, (0.5,) * 3)
        if len(values) != 3 or not all(math.isfinite(value) for value in values):
            raise ValueError(f"its {key} is {values}")
    return config


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
        if isinstance(model, eva.Eva):
            return dict(eva.checkpoint_filter_fn(state, vit))
        if isinstance(model, beit.Beit):
            return dict(beit.checkpoint_filter_fn(state, vit))
        return dict(vision_transformer.checkpoint_filter_fn(state, vit, adapt_layer_scale=True))
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
    except Exception as e:  # zipfile, zlib and NumPy's parser of headers raise many kinds
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
        else _vision_transformer(_infer_npz(shapes, spec), shapes, spec, drop_path)
    )
    if not name:
        model.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # type: ignore[assignment]
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


def _infer_npz(shapes: Shapes, spec: str) -> dict[str, Any]:
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
