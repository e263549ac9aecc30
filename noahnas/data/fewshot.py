"""Few-shot data: k training images a class, from annotation lists or drawn by seed.

Source of the lists' layout: NOAH (arXiv:2206.04673), data/few-shot in its repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from noahnas.data.dataset import Dataset, LoadOptions, Split, load_data
from noahnas.data.folder import Item
from noahnas.data.lists import classes_in, labels_of, options_in, read_list, whole
from noahnas.data.store import from_files
from noahnas.errors import DataError

KEYS = ("shots", "seed")  # options of the source
VAL_SHOTS = 4  # validation images a class, at most, where they are drawn


@dataclass(frozen=True)
class FewShot:
    """One of the paper's five sets."""

    title: str
    classes: int
    others: tuple[str, ...]  # other directory names in use


SETS: Mapping[str, FewShot] = {
    "food-101": FewShot("Food101", 101, ("food101",)),
    "oxford_flowers": FewShot("Flowers102", 102, ("oxford-flowers102", "oxford_flowers102")),
    "stanford_cars": FewShot("StanfordCars", 196, ("stanford-cars", "standford-cars")),
    "oxford_pets": FewShot("OxfordPets", 37, ("oxford-pets",)),
    "fgvc_aircraft": FewShot("FGVCAircraft", 100, ("fgvc-aircraft",)),
}


def load_few_shot(argument: str, options: LoadOptions) -> Dataset:
    """K training images a class: `few-shot:PLACE,shots=K,seed=S` (by default 1 and 0).

    Where PLACE is a directory with annotation lists, train is
    `annotations/train_meta.list.num_shot_K.seed_S`, val `val_meta.list`, test `test_meta.list`,
    all as they are. Else PLACE is any data set (`folder:pets`, `digits`): train is K images of each
    class of its train split, drawn by S; val the lesser of K and 4 of its val split; test is whole.

    Raises:
        DataError: with every fault of the lists, or what else is wrong.
    """
    place, given = options_in(argument, KEYS)
    shots = whole("few-shot", given, "shots", 1)
    seed = whole("few-shot", given, "seed", 0)
    if shots < 1:
        raise DataError("few-shot: shots is at least 1")
    if not (Path(place) / "annotations").is_dir():
        return drawn(load_data(place, options), shots, seed)
    found = check_few_shot(Path(place), shots, seed)
    classes = tuple(map(str, range(classes_of(Path(place), found))))
    return from_files(f"few-shot:{Path(place).name},{shots}", classes, found, options, fixed=True)


def check_few_shot(folder: Path, shots: int, seed: int) -> dict[str, list[Item]]:
    """The items of three lists, checked; decodes no image.

    Raises:
        DataError: with every fault of a list.
    """
    known = set_name(folder.name)
    classes = SETS[known].classes if known else None
    bases = [folder / "images", folder]
    lists = {
        "train": f"train_meta.list.num_shot_{shots}.seed_{seed}",
        "val": "val_meta.list",
        "test": "test_meta.list",
    }
    found: dict[str, list[Item]] = {}
    for split, name in lists.items():
        path = folder / "annotations" / name
        found[split] = read_list(path, classes, bases)
        classes = classes or classes_in(found["train"], path)
    counts = labels_of(found["train"])
    wrong = [label for label in sorted(counts) if counts[label] > shots]
    if wrong:
        raise DataError(
            f"{folder / 'annotations' / lists['train']}: {counts[wrong[0]]} images of class "
            f"{wrong[0]}, where {shots} were promised"
        )
    return found


def classes_of(folder: Path, found: Mapping[str, list[Item]]) -> int:
    """How many classes a set has: as is known of the paper's five, else as train's labels say."""
    known = set_name(folder.name)
    return SETS[known].classes if known else 1 + max(label for _, label in found["train"])


def set_name(folder: str) -> str | None:
    """Which of the paper's sets a directory's name means, if any."""
    for name, known in SETS.items():
        if folder in (name, *known.others):
            return name
    return None


def drawn(data: Dataset, shots: int, seed: int) -> Dataset:
    """The same task with few images: `shots` of each class for training, by seed.

    Raises:
        DataError: if a class has too few training images.
    """
    rng = np.random.default_rng([seed, shots])
    train = _some(data, "train", shots, rng)
    val = _some(data, "val", min(shots, VAL_SHOTS), rng)
    name = f"{data.name}, {shots} shots"
    return Dataset(name, data.classes, train, val, data.test, data.notes)


def _some(data: Dataset, split: str, count: int, rng: np.random.Generator) -> Split:
    """`count` images of each class; of val, fewer where there are fewer."""
    whole_split = data.split(split)
    labels = whole_split.labels.numpy()
    chosen: list[int] = []
    for label, name in enumerate(data.classes):
        there = np.flatnonzero(labels == label)
        if split == "train" and len(there) < count:
            raise DataError(
                f"{data.name}: {len(there)} training images of class {name}, {count} wanted"
            )
        chosen += rng.permutation(there)[:count].tolist()
    index = torch.tensor(sorted(chosen), dtype=torch.int64)  # (n)
    return Split(whole_split.images[index], whole_split.labels[index])
