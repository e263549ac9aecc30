"""CSV files that list images: columns path and label, and split where the splits are given."""

from __future__ import annotations

import csv
from pathlib import Path

from noahnas.data.dataset import SPLIT_WORDS, SPLITS, Dataset, LoadOptions
from noahnas.data.holdout import complete
from noahnas.data.store import from_files
from noahnas.errors import DataError

PATH = ("path", "image", "file", "filename")
LABEL = ("label", "class", "target")
SHOWN = 5  # faults told at once
DIGITS = 18  # of a number among class names


def load_csv(argument: str, options: LoadOptions) -> Dataset:
    """A CSV file with columns path, label and, if you like, split (train, val, test).

    Paths are relative to the file's directory. Labels are class names; if all are whole numbers,
    classes are in numeric order. A missing val or test is taken out of train, 20 % of each class,
    by `options.split_seed`.

    Raises:
        DataError: with the line of each fault: a missing column, value or file, an unknown split.
    """
    if not argument:
        raise DataError("name the file: csv:FILE")
    file = Path(argument)
    rows = _rows(file)
    given = {split for split, _, _ in rows}
    if "train" not in given:
        raise DataError(f"{file}: no row of split train")
    names = {label for _, _, label in rows}
    numeric = all(name.isdecimal() and len(name) <= DIGITS for name in names)
    classes = sorted(names, key=(lambda name: (int(name), name)) if numeric else str)
    numbers = {name: i for i, name in enumerate(classes)}
    found: dict[str, list[tuple[Path, int]]] = {split: [] for split in SPLITS if split in given}
    for split, path, label in rows:
        found[split].append((path, numbers[label]))
    labels = [label for _, label in found["train"]]
    whole = complete(str(file), classes, found, labels, options.split_seed)
    return from_files(str(file), classes, whole, options)


def _rows(file: Path) -> list[tuple[str, Path, str]]:
    """Split, image file and class name of each row."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.DictReader(f, strict=True)
            header = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = header
            lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise DataError(f"{file} cannot be read: {why}") from None
    path_key = next((name for name in PATH if name in header), None)
    label_key = next((name for name in LABEL if name in header), None)
    if not path_key or not label_key:
        told = ", ".join(header) or "nothing"
        raise DataError(f"{file}:1: a column 'path' and a column 'label' are needed; found: {told}")
    faults, rows = [], []
    for line, row in lines:
        split = (row.get("split") or "train").strip().lower()
        split = SPLIT_WORDS.get(split, split)
        path, label = (row[path_key] or "").strip(), (row[label_key] or "").strip()
        if "\0" in path:
            faults.append(f"{file}:{line}: the path holds a NUL byte")
        elif None in row or not path or not label:
            faults.append(f"{file}:{line}: a path and a label are needed, in {len(header)} columns")
        elif split not in SPLITS:
            faults.append(f"{file}:{line}: split '{split}' is none of {', '.join(SPLITS)}")
        else:
            rows.append((split, file.parent / path, label))
    if faults:
        more = f"\nand {len(faults) - SHOWN} more faults" if len(faults) > SHOWN else ""
        raise DataError("\n".join(faults[:SHOWN]) + more)
    if not rows:
        raise DataError(f"{file}: no image is listed")
    return rows
