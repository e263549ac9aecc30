"""Small data in exactly the layouts of VTAB-1k, NOAH's few-shot lists and its ImageNet variants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

TARGETS = ("imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition")
RECIPE = """\
name: short
description: for tests
supernet: {epochs: 2, lr: 5e-3, batch_size: 64}
policy: paper
trials: 4
batch: 4
search: {options: {population: 4, top: 2, mutants: 2, crossovers: 1}}
retrain: {epochs: 3, lr: 5e-3, batch_size: 16}
protocol:
  name: PROTOCOL
  table: Table 1 of a paper
  backbone: vit-digits
  space: tiny
  seeds: [0]
  winner: WINNER
  tokens: 2
  test_every: 2
  rows:
    linear: {epochs: 2, lr: 5e-3, batch_size: 16}
    full: {epochs: 2, lr: 1e-3, batch_size: 16}
    vpt-deep: {epochs: 2, lr: 5e-3, batch_size: 16}
    adapter: {epochs: 2, lr: 5e-3, batch_size: 16}
    lora: {epochs: 2, lr: 5e-3, batch_size: 16}
"""


def recipe(folder: Path, protocol: str, winner: str = "each-seed") -> str:
    text = RECIPE.replace("PROTOCOL", protocol).replace("WINNER", winner)
    if winner == "first-seed":
        text += "retrain_on: train\n"
    path = folder / f"{protocol}.yaml"
    path.write_text(text)
    return str(path)


def picture(path: Path, label: int, classes: int, rng: np.random.Generator) -> None:
    """Grey noise with a bright bar whose place is the label's."""
    pixels = rng.integers(0, 90, (16, 16), dtype=np.uint8)
    start = label * 16 // max(classes, 1)
    pixels[:, start : start + max(16 // classes, 1)] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def listed(
    base: Path, names: Sequence[str], classes: int, seed: int, labels: Sequence[int] | None = None
) -> list[str]:
    """Draw pictures below `base` and return the lines that list them, classes in turn."""
    rng = np.random.default_rng(seed)
    lines = []
    for i, name in enumerate(names):
        label = (labels or range(classes))[i % len(labels or range(classes))]
        picture(base / name, label, classes, rng)
        lines.append(f"{name} {label}")
    return lines


def write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def vtab_task(
    root: Path, task: str, classes: int, a_class: tuple[int, int, int] = (4, 2, 4)
) -> Path:
    """ROOT/TASK with its four lists, as NOAH's get_vtab1k.py writes them."""
    folder = root / task
    found = {}
    for seed, (split, count) in enumerate(
        zip(("train800", "val200", "test"), a_class, strict=True)
    ):
        names = [f"images/{split}/{i:06}.png" for i in range(count * classes)]
        found[split] = listed(folder, names, classes, seed)
        write(folder / f"{split}.txt", found[split])
    both = []
    for i, line in enumerate(found["train800"] + found["val200"]):  # saved anew, as there
        name, _, label = line.rpartition(" ")
        copy = f"images/train800val200/{i:06}.png"
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        (folder / copy).write_bytes((folder / name).read_bytes())
        both.append(f"{copy} {label}")
    write(folder / "train800val200.txt", both)
    return folder


def few_shot_set(
    root: Path,
    name: str,
    classes: int,
    shots: Sequence[int],
    seeds: Sequence[int],
    inside: str = "images",
) -> Path:
    """ROOT/NAME with annotations; file names hold blanks, and 1-shot lists each image twice."""
    folder = root / name
    base = folder / inside
    for seed in seeds:
        names = [f"train {seed}/{i:04}.png" for i in range(max(shots) * classes)]
        lines = listed(base, names, classes, seed)
        for count in shots:
            few = lines[: count * classes] * (2 if count == 1 else 1)
            write(folder / f"annotations/train_meta.list.num_shot_{count}.seed_{seed}", few)
    for split, count in (("val", 2), ("test", 3)):
        names = [f"{split}/{i:04}.png" for i in range(count * classes)]
        write(folder / f"annotations/{split}_meta.list", listed(base, names, classes, 9))
    return folder


def imagenets(
    root: Path, classes: int, shots: int, seeds: Sequence[int], subset: Sequence[int]
) -> None:
    """A small imagenet, its V2, Sketch, and A and R with a subset of the classes."""
    source = root / "imagenet"
    notes = source / "annotations"
    for seed in seeds:
        names = [f"n{i % classes:08}/s{seed} {i}.png" for i in range(shots * classes)]
        lines = listed(source / "train", names, classes, seed)
        write(notes / f"train_meta.list.num_shot_{shots}.seed_{seed}", lines)
    val = [f"n{i % classes:08}/v{i}.png" for i in range(2 * classes)]
    write(notes / "unofficial_val_list_4_shot16seed0", listed(source / "train", val, classes, 8))
    test = [f"n{i % classes:08}/t{i}.png" for i in range(3 * classes)]
    write(notes / "val_meta.list", listed(source / "val", test, classes, 9))
    for number, name in enumerate(TARGETS):
        labels = subset if number > 1 else range(classes)
        names = [f"{name}/x _ y {i}.png" for i in range(4 * len(labels))]
        lines = listed(root / name, names, classes, 20 + number, list(labels))
        write(root / name / "annotations/val_meta.list", lines)
