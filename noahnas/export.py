"""Weights out and in: the trained parts of a network as safetensors, and a run as a module."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from noahnas.backbone import Preprocess, load_backbone, weights_digest
from noahnas.data.image import UnreadableImageError, read_pixels
from noahnas.errors import DataError, RunError
from noahnas.files import SEAL, check_own, digest, write_atomic
from noahnas.normalise import normalised
from noahnas.rundir import RunDirectory, reading
from noahnas.space import Arch
from noahnas.supernet import Supernet

BEST = "best.safetensors"


def save_trained(path: Path, net: Supernet, about: Mapping[str, Any]) -> None:
    """Write the prompt modules and the head, whole or not at all; `about` goes to the header.

    Raises:
        WriteError: if the file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.trainable().items()}
    told = json.dumps(dict(about))
    write_atomic(path, save(tensors, {"noahnas": told, SEAL: _digest_of(told, tensors)}))


def read_header(path: Path) -> dict[str, Any]:
    """The `about` of a file that `save_trained` wrote.

    Raises:
        RunError: if the file is absent or damaged.
    """
    with reading(path):
        about = json.loads(_read(path)[0])
        if not isinstance(about, dict):
            raise ValueError("its header is no mapping")  # noqa: TRY004 - of a file
    return about


def load_trained(path: Path, net: Supernet) -> None:
    """Load what `save_trained` wrote into a network of the same shape.

    Raises:
        RunError: if the file is absent, damaged or of another network.
    """
    _, tensors = _read(path)
    wanted = {name: tuple(value.shape) for name, value in net.trainable().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise RunError(f"{path} does not fit the network: {odd} differs")
    net.load_state_dict(tensors, strict=False)


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """What the header tells, as JSON, and the tensors, compared with their digest."""
    try:
        check_own(path)
        with safe_open(path, framework="pt") as f:
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
            header = f.metadata() or {}
        told = header.get("noahnas", "")
        if header.get(SEAL) != _digest_of(told, tensors):
            raise ValueError("its digest is not that of its contents")  # noqa: TRY301
    except OSError as e:
        raise RunError(f"{path} cannot be read: {e.strerror or e}") from e
    except (SafetensorError, ValueError) as e:
        raise RunError(
            f"{path} is damaged: {e}; remove it, and it is made anew when the run goes on: "
            f"noahnas search --resume {path.parent}"
        ) from e
    return told, tensors


def _digest_of(told: str, tensors: Mapping[str, Tensor]) -> str:
    return digest(f"{told} {weights_digest(tensors)}".encode())


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one image."""

    path: str
    label: str
    probability: float  # softmax, in [0, 1]


class Tuned(nn.Module):
    """A retrained architecture: images in, logits out."""

    def __init__(
        self, net: Supernet, arch: Arch, classes: Sequence[str], preprocess: Preprocess
    ) -> None:
        super().__init__()
        self.net = net
        self.arch = arch
        self.classes = tuple(classes)
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), normalised by `preprocess` -> logits (B, classes)."""
        logits: Tensor = self.net(images, self.arch)
        return logits

    @torch.inference_mode()
    def predict(self, paths: Sequence[str | Path]) -> list[Prediction]:
        """Classify image files.

        Raises:
            DataError: if a file cannot be read as an image.
        """
        device = next(self.parameters()).device
        mean = torch.tensor(self.preprocess.mean, device=device).view(1, -1, 1, 1)  # (1, 3, 1, 1)
        std = torch.tensor(self.preprocess.std, device=device).view(1, -1, 1, 1)  # (1, 3, 1, 1)
        found = []
        for path in paths:
            try:
                image = read_pixels(
                    Path(path), self.preprocess.size, self.preprocess.interpolation
                )  # (H, W, 3)
            except UnreadableImageError as e:
                raise DataError(f"unreadable image: {path} ({e})") from None
            pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]  # (1, 3, H, W)
            logits = self((pixels.to(device, torch.float32) / 255 - mean) / std)  # (1, classes)
            probability, index = logits.softmax(dim=1)[0].max(dim=0)
            found.append(Prediction(str(path), self.classes[int(index)], probability.item()))
        return found


def load(run: str | Path) -> Tuned:
    """The retrained winner of a run as a module in eval mode, on the CPU.

    Raises:
        RunError: if the run is not finished, damaged, or its backbone has changed.
        BackboneError: if its backbone cannot be loaded.
    """
    folder = RunDirectory.open(Path(run))
    if not (folder.path / "result.json").is_file():
        raise RunError(f"{run} is not finished; go on with it: noahnas search --resume {run}")
    about = folder.about
    arch = Arch.from_dict(folder.read_json("result.json", "arch")["arch"])
    with reading(folder.path / "run.json"):
        inputs = about["inputs"]
        backbone = load_backbone(str(inputs["backbone"]))
        if backbone.digest != about["digests"]["backbone"]:
            raise RunError(f"the weights of {backbone.spec} have changed since {run} was made")
        classes = [str(name) for name in about["classes"]]
        normalise = inputs["recipe"]["retrain"]["normalise"]
        preprocess = normalised(backbone.preprocess, normalise)
    check_size(folder.path / BEST, arch, len(classes))
    net = Supernet(backbone.model, arch, len(classes))
    if inputs.get("full"):
        net.backbone.requires_grad_(True)
    load_trained(folder.path / BEST, net)
    return Tuned(net, arch, classes, preprocess).eval()


def check_size(path: Path, arch: Arch, classes: int) -> None:
    """Raise RunError if an arch has more units than a file of weights: it is not that arch's."""
    units = classes + sum(sum(arch.dims(module)) for module in arch.modules)
    held = sum(value.numel() for value in _read(path)[1].values())
    if units > held:
        raise RunError(f"{path} is not of this architecture: {held:,} weights, {units:,} units")
