"""A protocol's table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.box import SIMPLE
from rich.table import Table


class Column(Protocol):
    """What of a column a table shows."""

    @property
    def row(self) -> str:
        """What was trained."""

    @property
    def whose(self) -> str:
        """Paper's or ours."""


class Found(Protocol):
    """What of a protocol's table is shown."""

    @property
    def title(self) -> str:
        """Its name."""

    @property
    def columns(self) -> Sequence[Column]:
        """Published ones and ours."""

    def lines(self) -> list[tuple[str, list[str], str]]:
        """Label, one text a column, and kind."""


def protocol_tables(found: Found, width: int) -> list[Table]:
    """The table; or, where that is wider than `width`, the paper's columns, then ours, in parts."""
    lines = found.lines()
    label = max(len(text) for text, _, _ in lines)
    sizes = [
        max(*(len(text) for text in _heading(column)), *(len(texts[i]) for _, texts, _ in lines))
        for i, column in enumerate(found.columns)
    ]
    everything = list(range(len(sizes)))
    if label + sum(sizes) + 2 * len(sizes) + 2 <= width:
        return [_table(found, everything, found.title)]
    tables = []
    for whose in ("paper", "ours"):
        part: list[int] = []
        room = 0
        for i in (i for i in everything if found.columns[i].whose.partition(",")[0] == whose):
            if room < sizes[i] + 2 and part:
                tables.append(_table(found, part, f"{found.title} · {whose}"))
                part = []
            room = (room if part else width - label - 2) - sizes[i] - 2
            part.append(i)
        if part:
            tables.append(_table(found, part, f"{found.title} · {whose}"))
    return tables


def _heading(column: Column) -> list[str]:
    return [column.row, *column.whose.split(", ")]


def _table(found: Found, shown: Sequence[int], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for i in shown:
        column = found.columns[i]
        style = "bold" if column.whose == "ours" else ""
        heading = "\n".join(_heading(column))
        table.add_column(heading, justify="right", style=style, no_wrap=True)
    for label, texts, kind in found.lines():
        last = kind in ("group", "overall")
        kept = [texts[i] for i in shown]
        table.add_row(label, *kept, style="bold" if last else None, end_section=last)
    return table
