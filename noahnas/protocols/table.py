"""The table of a protocol: published figures beside ours, with means of group means."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from noahnas.protocols.rows import Row

Groups = Mapping[str, Mapping[str, str]]  # group -> task -> its title


@dataclass(frozen=True)
class Score:
    """A figure of the table, in %: a mean over seeds."""

    mean: float
    sd: float | None = None  # over seeds, where there are several

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + (f" ± {self.sd:.1f}" if self.sd is not None else "")


@dataclass(frozen=True)
class Column:
    """The figures of one row of the paper's table, or of ours."""

    row: str
    whose: str  # "paper", "ours" or "ours, best test epoch"
    scores: Mapping[str, Score | None]  # by task
    params: float | None = None  # tuned, head excluded, mean over runs

    def group_mean(self, tasks: Sequence[str]) -> float | None:
        """The mean over some tasks; None unless all have a figure."""
        found = [self.scores.get(task) for task in tasks]
        if not found or any(score is None for score in found):
            return None
        return statistics.fmean(score.mean for score in found if score is not None)


@dataclass(frozen=True)
class Table:
    """Tasks in groups down, columns across."""

    title: str
    groups: Groups
    columns: tuple[Column, ...]
    overall: str = ""  # the label of the mean of group means; "" = none
    notes: tuple[str, ...] = ()
    whole: Mapping[str, int] = field(default_factory=dict)  # tasks of a group in the paper

    def mean_of_groups(self, column: Column) -> float | None:
        """The mean of the groups' means, each group weighing the same."""
        found = [column.group_mean(list(tasks)) for tasks in self.groups.values()]
        if not found or any(mean is None for mean in found):
            return None
        return statistics.fmean(mean for mean in found if mean is not None)

    def lines(self) -> list[tuple[str, list[str], str]]:
        """Label, one text a column, and kind: "task", "group", "overall" or "params"."""
        lines: list[tuple[str, list[str], str]] = []
        for group, tasks in self.groups.items():
            for task, title in tasks.items():
                lines.append((title, [told(c.scores.get(task)) for c in self.columns], "task"))
            means = [told(c.group_mean(list(tasks))) for c in self.columns]
            of = self.whole.get(group, len(tasks))
            part = "" if of == len(tasks) else f", {len(tasks)} of {of}"
            if of > 1:
                lines.append((f"mean, {group}{part}", means, "group"))
        if self.overall:
            means = [told(self.mean_of_groups(c)) for c in self.columns]
            lines.append((self.overall, means, "overall"))
        sizes = ["–" if c.params is None else f"{c.params / 1e6:.3f}" for c in self.columns]
        return [*lines, ("parameters, M", sizes, "params")]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: for each column its scores, group means and mean, in %."""
        return {
            "title": self.title,
            "notes": list(self.notes),
            "columns": [
                {
                    "row": column.row,
                    "whose": column.whose,
                    "tasks": {
                        task: None if score is None else {"mean": score.mean, "sd": score.sd}
                        for tasks in self.groups.values()
                        for task in tasks
                        for score in (column.scores.get(task),)
                    },
                    "groups": {g: column.group_mean(list(t)) for g, t in self.groups.items()},
                    "mean": self.mean_of_groups(column) if self.overall else None,
                    "params": column.params,
                }
                for column in self.columns
            ],
        }

    def to_markdown(self) -> str:
        """The table in Markdown, with its notes."""
        head = ["", *(f"{c.row} ({c.whose})" for c in self.columns)]
        rows = [head, ["---", *("---:" for _ in self.columns)]]
        rows += [[label, *texts] for label, texts, _ in self.lines()]
        body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return "\n\n".join([f"# {self.title}", body, *self.notes]) + "\n"


def told(score: Score | float | None) -> str:
    """A figure with one decimal; a dash where there is none."""
    if score is None:
        return "–"
    return f"{score:.1f}" if isinstance(score, float) else str(score)


def over_seeds(accuracies: Sequence[float]) -> Score | None:
    """The mean and standard deviation in % of accuracies in [0, 1]."""
    percent = [100 * a for a in accuracies]
    if not percent:
        return None
    return Score(statistics.fmean(percent), statistics.stdev(percent) if len(percent) > 1 else None)


@cache
def _published() -> dict[str, Any]:
    text = files("noahnas.protocols").joinpath("published.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def source(protocol: str) -> str | None:
    """Where the published figures of a protocol come from; None if there are none."""
    where: str | None = _published()[protocol]["source"]
    return where


def published(protocol: str) -> dict[str, Column]:
    """The published columns of a protocol by row kind, task by task."""
    found = _published()[protocol]
    columns = {}
    for row, values in found["rows"].items():
        pairs = zip(found["order"], values, strict=True)
        scores = {task: None if v is None else Score(float(v)) for task, v in pairs}
        columns[row] = Column(row, "paper", scores)
    return columns


def beside(
    paper: Mapping[str, Column], rows: Sequence[Row], ours: Mapping[str, Sequence[Column]]
) -> tuple[Column, ...]:
    """Published columns that no row of ours stands for, then each row: the paper's, then ours."""
    kinds = {row.kind for row in rows}
    columns = [column for kind, column in paper.items() if kind not in kinds]
    for row in rows:
        if row.kind in paper:
            columns.append(paper[row.kind])
        columns += ours[row.name]
    return tuple(columns)
