"""Space files out: the text that reads back to an equal Space."""

from __future__ import annotations

from typing import Any

from noahnas.space.document import write_scalar
from noahnas.space.space import Space


def format_space(space: Space) -> str:
    """The space file of a Space; `parse_space` reads it back to an equal one."""
    lines = []
    for key, value in space.to_dict().items():
        if key != "description" or value:
            lines += _entry(key, value, "")
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, indent: str) -> list[str]:
    key = key if key.replace("_", "").isalpha() else write_scalar(key)
    if isinstance(value, dict):
        lines = [f"{indent}{key}:"]
        for name, part in value.items():
            lines += _entry(name, part, indent + "  ")
        return lines
    if key == "rules":
        return [f"{indent}{key}:", *(f"{indent}  - {write_scalar(rule)}" for rule in value)]
    if isinstance(value, list):
        return [f"{indent}{key}: [{', '.join(write_scalar(item) for item in value)}]"]
    return [f"{indent}{key}: {write_scalar(value)}"]
