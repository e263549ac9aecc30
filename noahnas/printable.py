"""Text as a terminal may show it: what others named cannot command it."""

from __future__ import annotations

import logging
import unicodedata

ESCAPED = ("Cc", "Cs", "Zl", "Zp")  # of Unicode: controls, halves of pairs, breaks of lines
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # right to left


def printable(text: str) -> str:
    r"""The text with escape sequences and other commands to a terminal written out, as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(letter if _harmless(letter) else _escaped(letter) for letter in text)


def _harmless(letter: str) -> bool:
    return letter in "\n\t" or (
        unicodedata.category(letter) not in ESCAPED and letter not in TURNING
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


class PrintableFormatter(logging.Formatter):
    """Warnings as plain lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return printable(super().format(record))
