"""Strategies head-to-head: the same supernets, splits, seeds and budgets; intervals and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noahnas.compare.plan import Plan
from noahnas.compare.run import Found, begun, carry_out
from noahnas.compare.summary import summary
from noahnas.files import json_text, write_atomic
from noahnas.progress import Progress, Report, silent
from noahnas.workers import Workers

__all__ = ["Found", "Plan", "begun", "carry_out", "compare", "resume", "summary", "write"]


def compare(
    out: Path,
    plan: Plan,
    *,
    forgiving: bool = False,
    report: Report = silent,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Do all of a plan that is not done in `out`, write the report there, return it.

    Raises:
        NoahnasError: of the kind of what is wrong.
    """
    found = carry_out(out, plan, forgiving=forgiving, report=report, workers=workers)
    report(Progress("report", 0, 1, "intervals, tests, genes, plots"))
    told = summary(found)
    write(out, told)
    report(Progress("report", 1, 1, str(out)))
    return told


def resume(out: Path, report: Report = silent) -> dict[str, Any]:
    """Go on with a comparison that was begun, as it was planned.

    Raises:
        RunError: if there is none, or its inputs have changed.
    """
    return compare(out, begun(out), forgiving=True, report=report)


def write(out: Path, told: dict[str, Any]) -> list[str]:
    """Write compare.json, compare.md and the plots; returns their names."""
    from noahnas.report.comparison import to_markdown
    from noahnas.report.comparison_plots import plots

    drawn = plots(told)
    pictures = [name for name in drawn if name.endswith(".png")]
    text = json_text(told, indent=1) + "\n"
    files = drawn | {
        "compare.md": to_markdown(told, pictures).encode(),
        "compare.json": text.encode(),
    }
    for name, content in files.items():
        write_atomic(out / name, content)
    return list(files)
