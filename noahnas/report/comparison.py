"""A comparison as tables, from what compare.json holds: for the terminal, and for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from noahnas.report.tables import passing_told

Told = Mapping[str, Any]


@dataclass(frozen=True)
class Sheet:
    """One table: a title, what its columns are, and texts."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """The table in Markdown, under its title."""
        head = [self.head, ("---", *("---:" for _ in self.head[1:]))]
        lines = [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in (*head, *self.rows)]
        return "\n".join([f"## {self.title}", "", *lines])

    def to_rich(self) -> Table:
        """The table for a terminal."""
        table = Table(title=self.title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
        for i, name in enumerate(self.head):
            table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table


def sheets(told: Told) -> list[Sheet]:
    """All tables of a comparison, the most important first."""
    return [
        _scores(told),
        *_fronts(told),
        _costs(told),
        *_tests(told),
        _optimism(told),
        _noise(told),
        _agreement(told),
        *_genes(told),
    ]


def heading(told: Told) -> str:
    """What was compared, on what, under which budgets."""
    about = told["about"]
    budget = about["budget"]
    params = "no budget on parameters" if budget is None else f"{budget:,} parameters"
    passing = passing_told(about["binding"])
    return (
        f"{about['backbone']} · {about['space']} ({params}: {passing}) · recipe "
        f"{about['recipe']['name']} · {told['of']} · {about['trials']} evaluations, "
        f"{about['passes']:,} passes a search"
    )


def to_markdown(told: Told, plots: Sequence[str] = ()) -> str:
    """The whole report in Markdown, with links to its plots."""
    parts = [f"# {told['title']}", heading(told) + "."]
    parts += [sheet.to_markdown() for sheet in sheets(told)]
    parts += [f"![{name}]({name})" for name in plots]
    parts += ["## Rules", "\n".join(f"- {rule}" for rule in told["rules"])]
    if told["notes"]:
        parts += ["## Notes", "\n".join(f"- {note}" for note in told["notes"])]
    versions = ", ".join(f"{k} {v}" for k, v in told["about"]["versions"].items())
    parts.append(f"Digest of the inputs: `{told['about']['digest']}`. {versions}.")
    return "\n\n".join(parts) + "\n"


# --- tables ----------------------------------------------------------------------------------


def _scores(told: Told) -> Sheet:
    keys = ("val", "val_at_equal_passes", "test", "area_evaluations", "area_passes")
    rows = [(label, *(percent(row[key]) for key in keys)) for label, row in _sorted(told["table"])]
    return Sheet(
        f"Accuracy in %, mean and 95 % interval {told['given']}",
        (
            "",
            "best val",
            "best val at equal passes",
            "test, retrained",
            "area, evaluations",
            "area, passes",
        ),
        tuple(rows),
    )


def _fronts(told: Told) -> list[Sheet]:
    rows = []
    for label, row in told["fronts"].items():
        low, high = (f"{cost:,.6g}" for cost in row["reference"])
        up_to = low if low == high else f"{low} to {high}, its dearest trial"
        rows.append((label, number(row["hypervolume"], 3), row["axis"], up_to))
    if not rows:
        return []
    return [
        Sheet(
            f"Fronts on val: mean hypervolume and 95 % interval {told['given']}",
            ("", "hypervolume", "accuracy against", "up to"),
            tuple(rows),
        )
    ]


def _costs(told: Told) -> Sheet:
    keys = ("params", "evaluations", "passes", "training_passes")
    rows = [
        (label, *(count(row[key]) for key in keys), number(row["seconds"], 1))
        for label, row in _sorted(told["table"])
    ]
    return Sheet(
        "What the winner and the search cost",
        ("", "parameters", "evaluations", "passes", "of them training", "seconds"),
        tuple(rows),
    )


def _tests(told: Told) -> list[Sheet]:
    tests = told["tests"]
    found = []
    for measure, rows in tests["measures"].items():
        lines = []
        for row in rows:
            if "reason" in row:
                lines.append((row["label"], *("–",) * 6, row["reason"]))
                continue
            lines.append(
                (
                    row["label"],
                    percent(row["difference"], signed=True),
                    f"{row['superiority']:.2f}",
                    f"{row['cliffs_delta']:+.2f}",
                    p_value(row["p"]),
                    f"{p_value(row['p_corrected'])} (≥ {p_value(row['smallest_p_corrected'])})",
                    beyond(row["supernets"]),
                    row["verdict"],
                )
            )
        found.append(
            Sheet(
                f"Against {tests['against']}: {measure}, paired by supernet and seed",
                (
                    "",
                    "difference, points",
                    "P(superior)",
                    "Cliff's δ",
                    "p",
                    "Holm's p (smallest attainable)",
                    "p over supernets",
                    "verdict",
                ),
                tuple(lines),
            )
        )
    return found


def _optimism(told: Told) -> Sheet:
    rows = []
    for label, row in told["optimism"].items():
        retrained = percent(row.get("retrained"), signed=True)
        rows.append(
            (
                label,
                percent(row["gap"], signed=True),
                percent(row["selection"], signed=True),
                retrained,
            )
        )
    return Sheet(
        "Selection optimism of winners, points",
        (
            "",
            "val − test, shared weights",
            "beyond that of unselected archs",
            "test retrained − val",
        ),
        tuple(rows),
    )


def _noise(told: Told) -> Sheet:
    rows = [
        (
            name,
            f"{100 * row['mean']:.1f}",
            f"{100 * row['sd']:.1f}",
            f"{100 * row['binomial']:.1f}",
            f"{100 * row['per_arch']:.1f} ({100 * row['per_arch_binomial']:.1f})",
        )
        for name, row in told["noise"]["by_supernet"].items()
    ]
    rows.append(("at winners", "", "", f"{100 * told['noise']['at_winners']:.1f}", ""))
    return Sheet(
        "Noise floor of the validation split, points",
        (
            "random archs on",
            "mean val",
            "sd between archs",
            "binomial error",
            "sd of val − test per arch (binomial)",
        ),
        tuple(rows),
    )


def _agreement(told: Told) -> Sheet:
    rows = []
    for label, row in told["winners"]["entrants"].items():
        found = row["agreement"]
        if found is None:
            rows.append((label, "–", "–", "–"))
            continue
        relative = "–" if found["relative"] is None else f"{found['relative']:.2f}"
        rows.append(
            (label, f"{found['steps']:.1f}", relative, f"{found['distinct']} of {found['of']}")
        )
    return Sheet(
        "How far winners of different seeds lie apart "
        f"(two random feasible archs: {told['winners']['random']['steps']:.1f} steps)",
        ("", "steps", "relative to random", "distinct winners"),
        tuple(rows),
    )


def _genes(told: Told, most: int = 10) -> list[Sheet]:
    genes = told["genes"]
    if "reason" in genes:
        return [Sheet(f"Genes that mattered: {genes['reason']}", ("",), ())]
    rows = [(name, f"{100 * share:.1f}") for name, share in list(genes["share"].items())[:most]]
    others = sum(list(genes["share"].values())[most:])
    if len(genes["share"]) > most:
        rows.append((f"{len(genes['share']) - most} others", f"{100 * others:.1f}"))
    rows.append(("together with others", f"{100 * genes['rest']:.1f}"))
    return [
        Sheet("Genes that mattered: share of the variance of val, %", ("", "share"), tuple(rows))
    ]


def _sorted(table: Told) -> list[tuple[str, Any]]:
    return sorted(table.items(), key=lambda item: -item[1]["val"]["mean"])


# --- figures ---------------------------------------------------------------------------------


def percent(value: Told | None, signed: bool = False) -> str:
    """A share in % or points with its interval; a dash where there is none."""
    return number(value, 1, 100, "+" if signed else "")


def count(value: Told | None) -> str:
    """A whole number with its interval."""
    return number(value, 0)


def number(value: Told | None, places: int, times: float = 1, sign: str = "") -> str:
    """`mean [low, high]`, without an interval where all values are the same or there is one."""
    if value is None:
        return "–"
    form = f"{{:{sign},.{places}f}}"
    mean, low, high = (
        None if v is None else form.format(times * v)
        for v in (value["mean"], value["low"], value["high"])
    )
    if low is None or (low == mean == high):
        return str(mean)
    return f"{mean} [{low}, {high}]"


def p_value(p: float) -> str:
    """Three digits, or that it is smaller."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def beyond(supernets: Told) -> str:
    """What can be said of other supernets, whole ones being flipped."""
    if supernets["smallest_p"] == 1:
        return "–"
    return f"{p_value(supernets['p'])} (≥ {p_value(supernets['smallest_p'])})"


def _plain(text: str) -> str:
    return text.replace("|", "\\|")
