"""Space files by name or path, and what they extend."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from noahnas.errors import Fault, SpaceError, unknown
from noahnas.space.document import Node, describe, parse, read
from noahnas.space.read import read_space
from noahnas.space.space import Space

MAX_CHAIN = 20  # files that extend each other
ENDINGS = (".yaml", ".yml")


def shipped() -> list[str]:
    """Names of the spaces that come with noahnas."""
    folder = files("noahnas.search_spaces")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_space(name_or_path: str | Path) -> Space:
    """A shipped space by name, or a space file by path.

    A word without a slash or a `.yaml` ending is a name.

    Raises:
        SpaceError: with every fault's line and column.
    """
    given = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in given or given.endswith(ENDINGS):
        path = Path(name_or_path)
        return parse_space(read(path, SpaceError), given, path.parent)
    if given not in shipped():
        hint = "; a file is named by its path, such as ./my-space.yaml"
        raise SpaceError(given, [Fault(0, 0, unknown("space", given, shipped()) + hint)])
    return parse_space(_shipped_text(given), f"{given}.yaml")


def parse_space(text: str, source: str = "space", folder: Path | None = None) -> Space:
    """A Space from the text of a space file.

    Args:
        text: of the file.
        source: what faults call it.
        folder: where paths in `extends` begin; without one, only shipped spaces can be extended.

    Raises:
        SpaceError: with every fault's line and column.
    """
    root = parse(text, source, SpaceError)
    faults: list[Fault] = []
    own = str((folder / Path(source).name).resolve()) if folder else source
    return read_space(_extended(root, folder, [own], faults), source, faults)


def _shipped_text(name: str) -> str:
    return files("noahnas.search_spaces").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _extended(root: Node, folder: Path | None, chain: list[str], faults: list[Fault]) -> Node:
    """The document merged into what it extends."""
    if not isinstance(root.value, dict) or "extends" not in root.value:
        return root
    node = root.value["extends"]
    try:
        text, source, beside, identity = _base(node, folder, chain)
        base = parse(text, source, SpaceError)
    except ValueError as e:
        faults.append(Fault(node.line, node.column, str(e), node.source))
        return _without(root, "extends")
    except SpaceError as e:
        faults += [Fault(f.line, f.column, f.message, f.source or e.source) for f in e.faults]
        return _without(root, "extends")
    base = _extended(base, beside, [*chain, identity], faults)
    return _merged(_without(base, "name", "description"), _without(root, "extends"), "", faults)


def _base(node: Node, folder: Path | None, chain: list[str]) -> tuple[str, str, Path | None, str]:
    """Text, source, folder and identity of the space that is named.

    Raises:
        ValueError: if there is none, its path leads where it may not, or it is in the chain.
        SpaceError: if its file cannot be read.
    """
    found = _located(node, folder)
    if found[3] in chain:
        names = " → ".join(Path(link).name for link in [*chain, found[3]])
        raise ValueError(f"extends goes round in a circle: {names}")
    if len(chain) >= MAX_CHAIN:
        raise ValueError(f"more than {MAX_CHAIN} spaces extend each other")
    return found


def _located(node: Node, folder: Path | None) -> tuple[str, str, Path | None, str]:
    given = node.value
    if not isinstance(given, str) or not given:
        raise ValueError(f"extends must be a space's name or a path, not {describe(node)}")
    if "/" not in given and "\\" not in given and not given.endswith(ENDINGS):
        if given not in shipped():
            raise ValueError(f"extends: {unknown('space', given, shipped())}")
        return _shipped_text(given), f"{given}.yaml", None, f"{given}.yaml"
    if folder is None:
        raise ValueError("extends: this text has no folder in which to look; name a shipped space")
    rule = "extends takes a path to a .yaml file in this file's folder or below"
    path = Path(given)
    odd = "\\" in given or ":" in given or not given.isprintable() or given.startswith("~")
    if odd or path.is_absolute() or ".." in path.parts or not given.endswith(ENDINGS):
        raise ValueError(f"{rule}, not '{given[:80]}'")
    try:
        target = (folder / path).resolve()
        inside = target.is_relative_to(folder.resolve())
        is_file, exists = target.is_file(), target.exists()
    except (OSError, RuntimeError) as e:
        raise ValueError(f"extends: '{given[:80]}' cannot be read: {e}") from None
    if not inside:
        raise ValueError(f"{rule}; '{given}' is a link out of it")
    if exists and not is_file:
        raise ValueError(f"extends: '{given}' is no regular file")
    if not exists:
        raise ValueError(f"extends: no such file '{given[:80]}'")
    return read(folder / path, SpaceError), str(folder / path), (folder / path).parent, str(target)


def _without(node: Node, *keys: str) -> Node:
    assert isinstance(node.value, dict)  # callers looked
    kept = {key: value for key, value in node.value.items() if key not in keys}
    return Node(node.line, node.column, kept, node.keys, node.source)


def _merged(base: Node, own: Node, where: str, faults: list[Fault]) -> Node:
    """`own` over `base`, key by key down to a module's keys; null drops a part."""
    if not isinstance(base.value, dict) or not isinstance(own.value, dict):
        return own
    entries, keys = dict(base.value), {**base.keys, **own.keys}
    for key, value in own.value.items():
        path = f"{where}.{key}" if where else key
        if value.value is None:
            if key not in entries:
                message = f"{path}: nothing drops a part, and there is none in what this extends"
                faults.append(Fault(*own.keys[key][:2], message, own.source))
            entries.pop(key, None)
        elif key in entries and (path in ("modules", "budget") or where == "modules"):
            entries[key] = _merged(entries[key], value, path, faults)
        else:
            entries[key] = value
    return Node(own.line, own.column, entries, keys, own.source)
