"""Selectors: `0-5`, `6-`, `-1`, `last 3`, `every 2` name blocks of a backbone."""

from __future__ import annotations

import re

_ONE = re.compile(r"-?(0|[1-9][0-9]{0,3})")
_SPAN = re.compile(r"(0|[1-9][0-9]{0,3})-(0|[1-9][0-9]{0,3})?")
_WORD = re.compile(r"(last|every) ([1-9][0-9]{0,3})")
FORMS = "0-5, 6-, -1, last 3 or every 2"


def select(text: str, blocks: int) -> tuple[int, ...]:
    """The blocks that a selector names, in a backbone of so many blocks.

    `3` is block 3 (from 0), `-1` the last one, `0-5` blocks 0 to 5, `6-` from 6 on, `last 3` the
    last three, `every 2` blocks 0, 2, 4, …

    Raises:
        ValueError: if the text is no selector, or names no block or one that is not there.
    """
    if match := _WORD.fullmatch(text):
        number = int(match[2])
        if match[1] == "every":
            return tuple(range(0, blocks, number))
        first, last = blocks - number, blocks - 1
    elif match := _SPAN.fullmatch(text):
        first, last = int(match[1]), int(match[2]) if match[2] else blocks - 1
        if match[2] and last < first:
            raise ValueError(f"'{text}' selects no block: {last} is before {first}")
        if not match[2] and first >= blocks:
            raise ValueError(f"'{text}' selects no block: the last of {blocks} is {blocks - 1}")
    elif match := _ONE.fullmatch(text):
        first = last = int(text) + (blocks if text.startswith("-") else 0)
    else:
        raise ValueError(f"'{text}' is no selector such as {FORMS}")
    if first < 0 or last >= blocks:
        raise ValueError(f"'{text}' selects more than the backbone's {blocks} blocks")
    return tuple(range(first, last + 1))


def check_selector(text: str) -> None:
    """Raise ValueError if the text is no selector for any backbone."""
    if not (_WORD.fullmatch(text) or _SPAN.fullmatch(text) or _ONE.fullmatch(text)):
        raise ValueError(f"'{text}' is no selector such as {FORMS}")
    if match := _SPAN.fullmatch(text):
        select(text, max(int(match[1]), int(match[2] or 0)) + 1)


def tied(tie: str, blocks: int) -> list[tuple[int, ...]]:
    """The groups of blocks that share a gene: none (each alone), all, pairs or thirds.

    Raises:
        ValueError: if the blocks do not divide so.
    """
    if tie == "all":
        return [tuple(range(blocks))]
    parts = {"none": blocks, "pairs": blocks / 2, "thirds": 3}[tie]
    size = blocks / parts
    if size != int(size) or parts != int(parts):
        raise ValueError(f"{blocks} blocks are not whole {tie}")
    return [tuple(range(i, i + int(size))) for i in range(0, blocks, int(size))]
