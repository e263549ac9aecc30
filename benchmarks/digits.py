"""Make the embedded demo assets: digits.npz, and a ViT pretrained on the digits 0 to 4.

    python benchmarks/digits.py

Needs scikit-learn, which ships the images (UCI "Optical Recognition of Handwritten Digits",
CC BY 4.0). The ViT (width 48, 4 blocks, 16×16 input, patch 4) is trained with its classifier on
every image of the digits 0–4; 5–9 are the task it is tuned on and are never shown. Takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from noahnas.backbone import Preprocess
from noahnas.data import Split
from noahnas.data.arrays import resized
from noahnas.data.digits import digits

ASSETS = Path(__file__).parents[1] / "noahnas" / "assets"
SEED, EPOCHS, BATCH, LR = 0, 30, 64, 2e-3
KWARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 4, "num_heads": 4}
PREPROCESS = Preprocess((16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def main() -> None:
    """Write both assets and print the accuracy on the training digits."""
    ASSETS.mkdir(exist_ok=True)
    raw = load_digits()
    images = raw.images.astype(np.uint8)  # (1797, 8, 8) in 0…16
    np.savez_compressed(ASSETS / "digits.npz", images=images, labels=raw.target.astype(np.uint8))
    pixels, labels = digits()
    first = labels < 5
    data = Split(resized(pixels[first], PREPROCESS.size), torch.from_numpy(labels[first]))
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = VisionTransformer(**KWARGS, num_classes=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    steps = EPOCHS * -(-len(data) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(len(data)))
        hits = 0
        for x, y in data.batches(BATCH, PREPROCESS, torch.device("cpu"), order):
            logits = model(x)  # (B, 5)
            hits += int((logits.argmax(1) == y).sum())
            optimizer.zero_grad()
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            schedule.step()
    model.reset_classifier(0)
    config = {
        "input_size": [3, *PREPROCESS.size],
        "mean": list(PREPROCESS.mean),
        "std": list(PREPROCESS.std),
        "interpolation": "bicubic",
    }
    told = {"class": "vision_transformer", "kwargs": KWARGS | {"num_classes": 0}}
    header = {
        "timm": json.dumps(told | {"pretrained_cfg": config}),
        "recipe": "benchmarks/digits.py",
    }
    save_file(model.state_dict(), ASSETS / "vit_digits.safetensors", header)
    accuracy = hits / len(data)
    print(f"{len(data)} images of 0–4, {EPOCHS} epochs, seed {SEED}: train accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
