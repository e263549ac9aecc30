"""Sections of documentation pages that benchmarks write, between two marks."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put(page: str, section: str, text: str) -> None:
    """Write a section of docs/`page`, between its begin and end marks.

    Raises:
        ValueError: if the page has no such marks.
    """
    path, marks = DOCS / page, [f"<!-- {section}: {word} -->" for word in ("begin", "end")]
    before, begin, rest = path.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise ValueError(f"{path} has no section {section}")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
