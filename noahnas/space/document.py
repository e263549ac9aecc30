"""YAML read with the place of every value, so that a fault can name its line and column.

Anchors, aliases, tags and duplicate keys are faults: a file says each thing once, in plain words.
"""

from __future__ import annotations

import json
import re
import stat
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from noahnas.errors import Fault, FileError, NoahnasError, unknown

MAX_BYTES = 1_000_000
MAX_DEPTH = 20  # of lists and mappings in each other
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})$")
_DIGITS = re.compile(r"[-+]?[0-9_]{19,}")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+)$")


Place = tuple[int, int, str]  # line, column, source


@dataclass(frozen=True)
class Node:
    """A value of a document and where it stands (counted from 1)."""

    line: int
    column: int
    value: bool | int | float | str | list[Node] | dict[str, Node] | None
    keys: Mapping[str, Place] = field(default_factory=dict)
    source: str = ""


Raise = Callable[[str, Sequence[Fault]], NoahnasError]


def read(path: Path, error: Raise = FileError) -> str:
    """The text of a small UTF-8 file.

    Raises:
        NoahnasError: built by `error`, if it is absent, a directory, too large or not UTF-8.
    """
    try:
        kind = path.stat()
        if not stat.S_ISREG(kind.st_mode) and not stat.S_ISDIR(kind.st_mode):
            raise error(str(path), [Fault(0, 0, "is no regular file")])
        if stat.S_ISREG(kind.st_mode) and kind.st_size > MAX_BYTES:
            raise error(str(path), [Fault(0, 0, f"larger than {MAX_BYTES} bytes")])
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(str(path), [Fault(0, 0, "no such file")]) from None
    except IsADirectoryError:
        raise error(str(path), [Fault(0, 0, "is a directory; name a file")]) from None
    except UnicodeDecodeError as e:
        raise error(str(path), [Fault(1, 1, f"not UTF-8 (byte {e.start})")]) from None
    except (OSError, ValueError) as e:
        raise error(str(path), [Fault(0, 0, f"cannot be read: {e}")]) from None


def parse(text: str, source: str, error: Raise = FileError) -> Node:
    """Parse one YAML document into nodes.

    Raises:
        NoahnasError: built by `error`, with every fault of form found.
    """
    faults: list[Fault] = []
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                deep = Fault(*_place(event), f"nested more than {MAX_DEPTH} deep")
                raise error(source, [*faults, deep])
            faults += _form(event)
        if faults:
            raise error(source, faults)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        told = str(e.problem or e.context)
        hint = "; indent with spaces" if r"'\t'" in told else ""
        raise error(source, [Fault(*place, f"not YAML: {told}{hint}")]) from None
    except (yaml.YAMLError, RecursionError) as e:
        raise error(source, [Fault(1, 1, f"not YAML: {str(e).splitlines()[0]}")]) from None
    if root is None:
        raise error(source, [Fault(1, 1, "the file is empty")])
    node = _node(root, faults, source)
    if faults:
        raise error(source, faults)
    return node


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _form(event: yaml.Event) -> list[Fault]:
    line, column = _place(event)
    if isinstance(event, yaml.AliasEvent):
        return [Fault(line, column, f"alias '*{event.anchor}': write the value out")]
    found = []
    anchor = getattr(event, "anchor", None)
    if anchor:
        found.append(Fault(line, column, f"anchor '&{anchor}': write the value out"))
    if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        found.append(Fault(line, column, f"tag '{tag}': plain values only"))
    return found


def _node(raw: yaml.Node, faults: list[Fault], source: str) -> Node:
    line, column = raw.start_mark.line + 1, raw.start_mark.column + 1
    if isinstance(raw, yaml.SequenceNode):
        items = [_node(item, faults, source) for item in raw.value]
        return Node(line, column, items, source=source)
    if isinstance(raw, yaml.MappingNode):
        entries: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        for key, value in raw.value:
            place = (key.start_mark.line + 1, key.start_mark.column + 1, source)
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name == "<<":
                faults.append(Fault(*place[:2], "merge key '<<': write the keys out"))
            elif name is None:
                faults.append(Fault(*place[:2], "a key must be a plain word"))
            elif wrong := unprintable(name):
                faults.append(Fault(*place[:2], wrong))
            elif name in entries:
                faults.append(Fault(*place[:2], f"duplicate key '{name}'"))
            else:
                entries[name], keys[name] = _node(value, faults, source), place
        return Node(line, column, entries, keys, source)
    value = _scalar(raw)
    if isinstance(value, str) and (wrong := unprintable(value)):
        faults.append(Fault(line, column, wrong))
    return Node(line, column, value, source=source)


def _scalar(raw: yaml.Node) -> bool | int | float | str | None:
    assert isinstance(raw, yaml.ScalarNode)  # the only kind left
    text = raw.value
    if raw.style in ("'", '"', "|", ">"):
        return str(text)
    kind = raw.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return str(text).lower() in ("true", "yes", "on")
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return str(text)


def write_scalar(value: bool | int | float | str | None) -> str:
    """A plain value as YAML that `parse` reads back to the same value; text is quoted."""
    if isinstance(value, str):
        return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**9).strip()
    return json.dumps(value)


class Checker:
    """Reads typed values out of nodes and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, node: Node, message: str) -> None:
        """Note a fault at `node`."""
        self.faults.append(Fault(node.line, node.column, message, node.source))

    def fault_at(self, place: Place, message: str) -> None:
        """Note a fault at a place."""
        line, column, source = place
        self.faults.append(Fault(line, column, message, source))

    def mapping(
        self, node: Node, what: str, known: Sequence[str] | None, kind: str = "key"
    ) -> dict[str, Node]:
        """The entries of a mapping; unknown keys are faults (`known=None`: any key goes)."""
        if not isinstance(node.value, dict):
            self.fault(node, f"{what} must be a mapping (key: value), not {describe(node)}")
            return {}
        if known is not None:
            for key in node.value:
                if key not in known:
                    self.fault_at(node.keys[key], unknown(kind, key, known))
        return {k: v for k, v in node.value.items() if known is None or k in known}

    def text(self, node: Node, what: str) -> str:
        """A string."""
        if isinstance(node.value, str):
            return node.value
        self.fault(node, f"{what} must be text, not {describe(node)}")
        return ""

    def integer(self, node: Node, what: str, minimum: int = 0, maximum: int = 10**18) -> int:
        """A whole number from `minimum` to `maximum`."""
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            if minimum <= node.value <= maximum:
                return node.value
            limit = f"least {minimum}" if node.value < minimum else f"most {maximum}"
            self.fault(node, f"{what} must be at {limit}, not {node.value}")
        elif isinstance(node.value, str) and _DIGITS.fullmatch(node.value):
            self.fault(node, f"{what} is too large: {describe(node)}")
        else:
            self.fault(node, f"{what} must be a whole number, not {describe(node)}")
        return minimum

    def number(self, node: Node, what: str, minimum: float = 0.0) -> float:
        """A finite number of at least `minimum`."""
        if type(node.value) in (int, float):
            assert isinstance(node.value, (int, float))
            if minimum <= node.value < float("inf"):
                return float(node.value)
            self.fault(node, f"{what} must be at least {minimum:g}, not {node.value}")
        else:
            self.fault(node, f"{what} must be a number, not {describe(node)}")
        return minimum

    def integers(self, node: Node, what: str, minimum: int = 0) -> tuple[int, ...]:
        """A list of distinct whole numbers, or one alone; ascending."""
        items = node.value if isinstance(node.value, list) else [node]
        if not items:
            self.fault(node, f"{what} must name at least one value")
        values = [self.integer(item, what, minimum) for item in items]
        for value, item in zip(values, items, strict=True):
            if values.count(value) > 1 and values.index(value) != items.index(item):
                self.fault(item, f"{what} names {value} twice")
        return tuple(sorted(set(values)))


def unprintable(text: str, kinds: Sequence[str] = ("Cs",)) -> str | None:
    """What is wrong with text that no file takes: lone surrogates, or other kinds of Unicode."""
    for letter in text:
        if letter not in "\t\n" and unicodedata.category(letter) in kinds:
            return f"text holds U+{ord(letter):04X}, which cannot be printed: leave it out"
    return None


def describe(node: Node) -> str:
    """What stands at a node, in a few words."""
    match node.value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(node.value).lower()}"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f"'{node.value[:40]}'"
        case _:
            return str(node.value)
