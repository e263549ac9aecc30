"""The evaluation tasks: what each trains a probe on, and tests it on.

Only these images are looked at for a figure, and pretraining sees none of the test images: MNIST
and the rendered tasks never come up in it, Fashion-MNIST is the last 10 000 of train, emoji are the
held-out third of the symbols, and digits are 5–9.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
from pictures import SIDE
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
TRAIN, TEST = 1000, 2000


@dataclass(frozen=True)
class Split:
    """One task, drawn with one seed."""

    x: Bytes  # (n, 56, 56, 3), train
    y: Ints  # (n,)
    test_x: Bytes  # (m, 56, 56, 3)
    test_y: Ints  # (m,)


def _rendered() -> ModuleType:
    """`noahnas.data.rendered`, from its file: the probe needs nothing else of the package."""
    path = Path(__file__).parents[2] / "noahnas" / "data" / "rendered.py"
    spec = importlib.util.spec_from_file_location("rendered", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rendered"] = module
    spec.loader.exec_module(module)
    return module


def resized(images: Bytes) -> Bytes:
    """Grey (n, h, w), RGB or RGBA (on white) of any size to (n, 56, 56, 3), bicubic."""
    out = np.empty((len(images), SIDE, SIDE, 3), np.uint8)
    for i, a in enumerate(images):
        picture = Image.fromarray(a)
        if picture.mode == "RGBA":
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        out[i] = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return out


def _drawn(name: str, **options: int) -> Callable[[Path, int], Split]:
    def split(_: Path, seed: int) -> Split:
        render = getattr(_rendered(), name)
        x, y = render(np.random.default_rng([7_000, seed]), TRAIN, **options)
        test_x, test_y = render(np.random.default_rng([8_000, seed]), TEST, **options)
        return Split(resized(x), y, resized(test_x), test_y)

    return split


def _filed(name: str) -> Callable[[Path, int], Split]:
    def split(cache: Path, seed: int) -> Split:
        with np.load(cache / f"{name}_eval.npz") as data:
            x, y = data["x"], data["y"]
        order = np.random.default_rng([9_000, seed]).permutation(len(x))[: TRAIN + TEST]
        x, y = resized(x[order]), y[order]
        return Split(x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:])

    return split


def _emoji(cache: Path, seed: int) -> Split:
    """Train on symbols that pretraining may have seen, test on the third that it never saw."""
    with np.load(cache / "emoji_train.npz") as seen, np.load(cache / "emoji_eval.npz") as kept:
        order = np.random.default_rng([9_000, seed]).permutation(len(seen["x"]))[:TRAIN]
        return Split(resized(seen["x"][order]), seen["y"][order], resized(kept["x"]), kept["y"])


def _digits(_: Path, seed: int) -> Split:
    """Digits 5–9 of sklearn: 300 train, 596 test, neither in pretraining."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    keep = bunch.target >= 5
    x = resized((bunch.images[keep] * (255 / 16)).astype(np.uint8))
    y = bunch.target[keep].astype(np.int64) - 5
    order = np.random.default_rng([9_000, seed]).permutation(len(x))
    return Split(x[order[:300]], y[order[:300]], x[order[300:]], y[order[300:]])


TASKS: dict[str, Callable[[Path, int], Split]] = {
    "mnist": _filed("mnist"),
    "heading8": _drawn("heading", directions=8),
    "heading16": _drawn("heading", directions=16),
    "fashion": _filed("fashion"),
    "emoji": _emoji,
    "count": _drawn("count"),
    "distance": _drawn("distance"),
    "x_position16": _drawn("x_position", columns=16),
    "digits5-9": _digits,
}
