"""Annotation lists: one `relative/path label` a line, as published splits are shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from noahnas.data.folder import Item
from noahnas.errors import DataError

SHOWN = 5  # faults of a list


def read_list(path: Path, classes: int | None, bases: Sequence[Path]) -> list[Item]:
    """The images and labels of a list.

    The label stands after the last blank, so a path may hold blanks. A line that stands there
    twice counts once (published 1-shot lists name each image twice).

    Args:
        path: the list.
        classes: how many there are; None = any label goes.
        bases: directories that paths may be relative to; the first that holds an image counts.

    Raises:
        DataError: with the line of each fault: no label, a label that is no number or not among
            the classes, a path that is absolute or leads out, an image that is not there or has
            two labels.
    """
    found: dict[str, Item] = {}
    faults: list[str] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = (part.strip() for part in line.strip().rpartition(" "))
        fault = _fault(name, label, classes, bases)
        if not fault and name in found and found[name][1] != int(label):
            fault = f"{name} has the label {found[name][1]} above and {label} here"
        place = found[name][0] if name in found else None if fault else _place(name, bases)
        if fault or not place:
            faults.append(f"{path}:{number}: {fault or f'there is no image {bases[0] / name}'}")
        else:
            found[name] = (place, int(label))
    if not found and not faults:
        raise DataError(f"{path} is empty; it should hold one 'path label' a line")
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise DataError("\n".join(faults[:SHOWN] + more))
    return list(found.values())


def classes_in(items: Sequence[Item], path: Path) -> int:
    """How many classes a training list has, whose labels must be 0, 1, 2, … without a gap.

    Raises:
        DataError: if one is missing.
    """
    there = set(labels_of(items))
    gap = next(label for label in range(len(there) + 1) if label not in there)
    if gap < len(there):
        raise DataError(f"{path}: labels go up to {max(there)}, but no image has the label {gap}")
    return len(there)


def labels_of(items: Sequence[Item]) -> Counter[int]:
    """How many images each label has."""
    return Counter(label for _, label in items)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"there is no list {path}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read: {e}") from None


def _fault(name: str, label: str, classes: int | None, bases: Sequence[Path]) -> str | None:
    if not name:
        return f"'{label}' is not 'path label'"
    if not label.isdecimal() or len(label) > 9:
        return f"the label '{label[:20]}' is no whole number"
    if classes is not None and int(label) >= classes:
        return f"the label {label} is not in 0…{classes - 1}"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return f"the path '{name}' leads out of {bases[0]}; it must be relative, without '..'"
    return None


def _place(name: str, bases: Sequence[Path]) -> Path | None:
    return next((base / name for base in bases if (base / name).is_file()), None)


def options_in(argument: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Divide `PLACE,key=value,…` into PLACE and its options; only keys in `known` are options."""
    options: dict[str, str] = {}
    while True:
        place, comma, last = argument.rpartition(",")
        key, equals, value = last.partition("=")
        if not (comma and equals and key in known):
            return argument, options
        options[key] = value
        argument = place


def whole(name: str, options: dict[str, str], key: str, default: int) -> int:
    """A whole number among the options of a data source called `name`.

    Raises:
        DataError: if it is none.
    """
    text = options.get(key, str(default))
    if not text.isdecimal():
        raise DataError(f"{name}: {key}={text} is no whole number")
    return int(text)
