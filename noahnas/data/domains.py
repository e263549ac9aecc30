"""Domain generalisation: trained on a few images a class of ImageNet, tested on its variants.

Source of the layout: NOAH (arXiv:2206.04673), data/few-shot/imagenet and data/domain-generalization
in its repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from noahnas.data.dataset import Dataset, LoadOptions
from noahnas.data.folder import Item
from noahnas.data.lists import classes_in, options_in, read_list, whole
from noahnas.data.store import from_files
from noahnas.errors import DataError, unknown

KEYS = ("shots", "seed", "target")  # options of the source
SOURCE = "imagenet"
VAL = "unofficial_val_list_4_shot16seed0"


@dataclass(frozen=True)
class Target:
    """A test set."""

    title: str
    others: tuple[str, ...] = ()  # other directory names in use
    subset: bool = False  # holds some of ImageNet's classes, and is scored among those


TARGETS: Mapping[str, Target] = {
    SOURCE: Target("ImageNet"),
    "imagenetv2": Target("ImageNet-V2", ("imagenet-v2",)),
    "imagenet-sketch": Target("ImageNet-Sketch", ("imagenet_sketch",)),
    "imagenet-adversarial": Target("ImageNet-A", ("imagenet-a",), subset=True),
    "imagenet-rendition": Target("ImageNet-R", ("imagenet-r",), subset=True),
}


def load_domains(argument: str, options: LoadOptions) -> Dataset:
    """ImageNet's shots with a target as test: `domains:ROOT,shots=16,seed=0,target=imagenet`.

    Train is ROOT/imagenet/annotations/train_meta.list.num_shot_K.seed_S, val NOAH's unofficial
    list of other training images, test the target's val_meta.list. There are as many classes as
    labels in train: 1000, or those of a smaller ImageNet.

    Raises:
        DataError: with every fault of the lists, or what else is wrong.
    """
    place, given = options_in(argument, KEYS)
    target = given.get("target", SOURCE)
    shots, seed = whole("domains", given, "shots", 16), whole("domains", given, "seed", 0)
    found = check_domains(Path(place), shots, seed, target)
    classes = 1 + max(label for _, label in found["train"])  # without a gap, as was checked
    names = tuple(map(str, range(classes)))
    return from_files(f"domains:{target}", names, found, options, fixed=True)


def check_domains(root: Path, shots: int, seed: int, target: str) -> dict[str, list[Item]]:
    """The items of train, val and a target, checked; decodes no image.

    Raises:
        DataError: with every fault of a list.
    """
    if target not in TARGETS:
        raise DataError(unknown("target", target, TARGETS))
    source = root / SOURCE
    notes = source / "annotations"
    inside = [source / "train", source / "images" / "train", source / "images", source]
    path = notes / f"train_meta.list.num_shot_{shots}.seed_{seed}"
    train = read_list(path, None, inside)
    classes = classes_in(train, path)
    val = read_list(notes / VAL, classes, inside)
    folder = target_folder(root, target)
    bases = [folder, folder / "images"]
    if target == SOURCE:
        bases = [source / "val", source / "images" / "val", source / "images", source]
    test = read_list(folder / "annotations" / "val_meta.list", classes, bases)
    return {"train": train, "val": val, "test": test}


def target_folder(root: Path, target: str) -> Path:
    """The directory of a target below `root`, by any of its names.

    Raises:
        DataError: if it is not there.
    """
    for name in (target, *TARGETS[target].others):
        if (root / name / "annotations").is_dir():
            return root / name
    raise DataError(f"{root} has no {target}/annotations/val_meta.list")
