"""Weights come from a file or a hub, whole and fitting, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from noahnas.backbone import load_backbone
from noahnas.errors import BackboneError

KWARGS: dict[str, Any] = {"img_size": 16, "patch_size": 8, "depth": 2, "num_heads": 2}


def vit(width: int = 128) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**KWARGS, embed_dim=width, num_classes=3)


def assert_same(model: Any, other: Any) -> None:
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(
        model.eval().forward_features(x), other.eval().forward_features(x), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_plain_vit_is_read_from_its_weights_alone(tmp_path: Path, suffix: str) -> None:
    path, model = tmp_path / f"w{suffix}", vit()
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    else:
        save_file(model.state_dict(), path)
    loaded = load_backbone(str(path))
    assert_same(loaded.model, model)
    assert loaded.preprocess.size == (16, 16)
    assert load_backbone(str(path)).digest == loaded.digest


def test_the_digest_tells_weights_apart(tmp_path: Path) -> None:
    model = vit()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    with torch.no_grad():
        model.blocks[0].attn.qkv.bias[3] += 1e-3
    save_file(model.state_dict(), tmp_path / "b.safetensors")
    digests = {load_backbone(str(tmp_path / f"{n}.safetensors")).digest for n in "ab"}
    assert len(digests) == 2


def test_a_file_under_a_timm_name_takes_that_architecture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_backbone(f"test_vit@{tmp_path / 'w.safetensors'}")
    x = torch.randn(1, 3, *loaded.preprocess.size)
    torch.testing.assert_close(loaded.model.eval()(x), model.eval()(x), rtol=0, atol=1e-6)


def jax_archive(model: VisionTransformer) -> dict[str, np.ndarray]:
    """The model in the layout of the original ViT's npz checkpoints."""
    s = {k: v.numpy() for k, v in model.state_dict().items()}
    width, heads = model.embed_dim, KWARGS["num_heads"]
    out = {
        "embedding/kernel": s["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": s["patch_embed.proj.bias"],
        "cls": s["cls_token"],
        "Transformer/posembed_input/pos_embedding": s["pos_embed"],
        "Transformer/encoder_norm/scale": s["norm.weight"],
        "Transformer/encoder_norm/bias": s["norm.bias"],
    }
    for i in range(KWARGS["depth"]):
        block, to = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out[f"{to}{theirs}/scale"] = s[f"{block}{ours}.weight"]
            out[f"{to}{theirs}/bias"] = s[f"{block}{ours}.bias"]
        attention = f"{to}MultiHeadDotProductAttention_1/"
        weights = np.split(s[f"{block}attn.qkv.weight"], 3)
        biases = np.split(s[f"{block}attn.qkv.bias"], 3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}{name}/kernel"] = weight.T.reshape(width, heads, -1)
            out[f"{attention}{name}/bias"] = bias.reshape(heads, -1)
        out[f"{attention}out/kernel"] = s[f"{block}attn.proj.weight"].T.reshape(heads, -1, width)
        out[f"{attention}out/bias"] = s[f"{block}attn.proj.bias"]
        for j in range(2):
            out[f"{to}MlpBlock_3/Dense_{j}/kernel"] = s[f"{block}mlp.fc{j + 1}.weight"].T
            out[f"{to}MlpBlock_3/Dense_{j}/bias"] = s[f"{block}mlp.fc{j + 1}.bias"]
    return out


def test_an_npz_checkpoint_of_the_original_vit_is_read(tmp_path: Path) -> None:
    model = vit()
    np.savez(tmp_path / "w.npz", **jax_archive(model))
    assert_same(load_backbone(str(tmp_path / "w.npz")).model, model)


def test_an_npz_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    for missing in (
        "cls",
        "Transformer/encoder_norm/scale",
        "Transformer/encoderblock_1/LayerNorm_2/bias",
    ):
        archive = jax_archive(vit())
        del archive[missing]
        np.savez(tmp_path / "w.npz", **archive)
        with pytest.raises(BackboneError):
            load_backbone(str(tmp_path / "w.npz"))


def spoiled(kind: str) -> dict[str, torch.Tensor]:
    state = dict(vit().state_dict())
    match kind:
        case "lacks":
            del state["blocks.1.mlp.fc2.weight"]
        case "has the unknown":
            state["blocks.1.mlp.fc3.weight"] = torch.zeros(3)
        case "does not fit":
            state["norm.weight"] = torch.zeros(7)
        case "NaN":
            state["norm.weight"] = torch.full((128,), float("nan"))
        case "it is no timm ViT":
            state = {"layer1.weight": torch.zeros(3)}
    return state


@pytest.mark.parametrize(
    "message", ["lacks", "has the unknown", "does not fit", "NaN", "it is no timm ViT"]
)
def test_unfitting_weights_are_an_error_never_a_random_backbone(
    tmp_path: Path, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_file(spoiled(message), path)
    with pytest.raises(BackboneError) as caught:
        load_backbone(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"", "is empty"),
        ("w.safetensors", b"garbage garbage", "cannot be read as weights"),
        ("w.pth", b"garbage", "weights"),
        ("w.npz", b"garbage", "cannot be read as weights"),
    ],
)
def test_a_file_that_is_no_weights_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BackboneError) as caught:
        load_backbone(str(tmp_path / name))
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"cls_token": Evil()}, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="weights"):
        load_backbone(str(tmp_path / "w.pth"))
    assert "ran" not in capsys.readouterr().out


def test_an_absent_file_and_an_unknown_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no such file"):
        load_backbone(str(tmp_path / "absent.safetensors"))
    with pytest.raises(BackboneError, match="did you mean 'vit_base_patch16_224'"):
        load_backbone("vit_base_patch16_22")
    with pytest.raises(BackboneError, match="did you mean 'beit_base_patch16_224'"):
        load_backbone("bait_base_patch16_224")


def test_a_hub_that_cannot_be_reached_is_an_error_that_names_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub cannot be had where the tests run; its client's offline mode stands in for that."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="--backbone vit_tiny_patch16_224@FILE"):
        load_backbone("vit_tiny_patch16_224")


def test_weights_that_a_hub_would_bring_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mock: no hub can be reached here, so timm is handed the file that it would download."""
    torch.manual_seed(1)
    model = timm.create_model("test_vit")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(
        timm.models._builder, "load_state_dict_from_hf", lambda *a, **k: model.state_dict()
    )
    loaded = load_backbone("test_vit.r160_in1k")
    lacking = {k: v for k, v in model.state_dict().items() if not k.startswith("blocks.0.")}
    x = torch.randn(1, 3, *loaded.preprocess.size)
    expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(loaded.model.eval()(x), expected, rtol=0, atol=1e-6)
    monkeypatch.setattr(
        timm.models._builder, "load_state_dict_from_hf", lambda *a, **k: dict(lacking)
    )
    with pytest.raises(BackboneError, match="cannot be had"):
        load_backbone("test_vit.r160_in1k")


def test_a_path_may_hold_an_at_sign_and_a_jax_file_brings_its_normalisation(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "me@work"
    folder.mkdir()
    np.savez(folder / "w.npz", **jax_archive(vit()))
    loaded = load_backbone(str(folder / "w.npz"))
    assert loaded.preprocess.mean == loaded.preprocess.std == (0.5, 0.5, 0.5)


def test_a_model_of_other_than_three_channels_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    grey = VisionTransformer(**KWARGS, embed_dim=128, num_classes=0, in_chans=1)
    save_file(grey.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="takes 1 channels"):
        load_backbone(str(tmp_path / "w.safetensors"))
