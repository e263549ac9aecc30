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


def protocol_tables(found: Found, *, split: bool) -> list[Table]:
    """The table; or, where that is too wide, the paper's columns and ours one above the other."""
    kinds = [c.whose == "paper" for c in found.columns]
    if not split or all(kinds) or not any(kinds):
        return [_table(found, [True] * len(kinds), found.title)]
    return [
        _table(found, kinds, f"{found.title} · paper"),
        _table(found, [not paper for paper in kinds], f"{found.title} · ours"),
    ]


def _table(found: Found, shown: Sequence[bool], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column, show in zip(found.columns, shown, strict=True):
        if show:
            whose = column.whose.replace(", ", "\n")
            style = "bold" if column.whose == "ours" else ""
            table.add_column(f"{column.row}\n{whose}", justify="right", style=style, no_wrap=True)
    for label, texts, kind in found.lines():
        kept = [text for text, show in zip(texts, shown, strict=True) if show]
        last = kind in ("group", "overall")
        table.add_row(label, *kept, style="bold" if last else None, end_section=last)
    return table
