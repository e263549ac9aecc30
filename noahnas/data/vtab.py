"""VTAB-1k: nineteen tasks of 1000 training images, in the layout in which they are shared.

ROOT/TASK/{train800,val200,train800val200,test}.txt, each a list of `images/… label`.

Source: Zhai et al., arXiv:1910.04867; the layout is that of NOAH's get_vtab1k.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from noahnas.data.dataset import Dataset, LoadOptions
from noahnas.data.folder import Item
from noahnas.data.lists import labels_of, read_list
from noahnas.data.store import from_files
from noahnas.errors import DataError, unknown

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
UNION = "train800val200.txt"


@dataclass(frozen=True)
class Vtab:
    """One task of VTAB-1k."""

    title: str  # as papers print it
    classes: int
    group: str  # natural, specialised or structured
    other: str = ""  # another directory name in use


TASKS: Mapping[str, Vtab] = {
    "cifar": Vtab("CIFAR-100", 100, "natural", "cifar100"),
    "caltech101": Vtab("Caltech101", 102, "natural"),
    "dtd": Vtab("DTD", 47, "natural"),
    "oxford_flowers102": Vtab("Flowers102", 102, "natural"),
    "oxford_iiit_pet": Vtab("Pets", 37, "natural", "oxford_pet"),
    "svhn": Vtab("SVHN", 10, "natural"),
    "sun397": Vtab("Sun397", 397, "natural"),
    "patch_camelyon": Vtab("Camelyon", 2, "specialised"),
    "eurosat": Vtab("EuroSAT", 10, "specialised"),
    "resisc45": Vtab("Resisc45", 45, "specialised"),
    "diabetic_retinopathy": Vtab("Retinopathy", 5, "specialised"),
    "clevr_count": Vtab("Clevr-Count", 8, "structured"),
    "clevr_dist": Vtab("Clevr-Dist", 6, "structured"),
    "dmlab": Vtab("DMLab", 6, "structured"),
    "kitti": Vtab("KITTI-Dist", 4, "structured"),
    "dsprites_loc": Vtab("dSpr-Loc", 16, "structured"),
    "dsprites_ori": Vtab("dSpr-Ori", 16, "structured"),
    "smallnorb_azi": Vtab("sNORB-Azim", 18, "structured"),
    "smallnorb_ele": Vtab("sNORB-Ele", 9, "structured"),
}


def load_vtab(argument: str, options: LoadOptions) -> Dataset:
    """One task from its directory: `vtab:ROOT/TASK`.

    Train is train800.txt, val is val200.txt; retraining joins them, and so needs no
    train800val200.txt, which is only checked to hold as many images of each class. Of a task with
    many classes the 800 images may leave some out: those are never predicted rightly, and no fault.

    Raises:
        DataError: with every fault of the lists, or what else is wrong.
    """
    folder = Path(argument)
    name = task_name(folder.name)
    classes = tuple(map(str, range(TASKS[name].classes)))
    found = check_vtab(folder)
    return from_files(f"vtab:{name}", classes, found, options, fixed=True, absent_ok=True)


def task_name(folder: str) -> str:
    """The task of a directory's name.

    Raises:
        DataError: if there is none of that name.
    """
    for name, task in TASKS.items():
        if folder in (name, task.other):
            return name
    raise DataError(unknown("VTAB-1k task", folder, TASKS))


def task_folder(root: Path, task: str) -> Path:
    """The directory of a task below `root`, by either of its names.

    Raises:
        DataError: if it is not there.
    """
    for name in filter(None, (task, TASKS[task].other)):
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root} has no directory {task}; VTAB-1k is laid out as ROOT/{task}/{LISTS['train']}, …"
    )


def check_vtab(folder: Path) -> dict[str, list[Item]]:
    """The items of a task's three splits, its four lists checked; decodes no image.

    Raises:
        DataError: with every fault of the lists.
    """
    task = TASKS[task_name(folder.name)]
    missing = [name for name in (*LISTS.values(), UNION) if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}")
    found = {
        split: read_list(folder / name, task.classes, [folder]) for split, name in LISTS.items()
    }
    both = labels_of(read_list(folder / UNION, task.classes, [folder]))
    if both != labels_of(found["train"]) + labels_of(found["val"]):
        raise DataError(
            f"{folder / UNION} does not hold as many images of each class as {LISTS['train']} and "
            f"{LISTS['val']} together: the lists are not of one download"
        )
    _all_there(folder, task, {label for items in found.values() for _, label in items})
    return found


def _all_there(folder: Path, task: Vtab, labels: set[int]) -> None:
    """Raise DataError where the highest labels never occur: another number of classes, then."""
    if max(labels) < task.classes - 1:
        raise DataError(
            f"{folder}: {task.title} has {task.classes} classes, but the lists' labels end at "
            f"{max(labels)}"
        )
