"""The table of micro-VTAB for the terminal and in Markdown, from what micro-vtab.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noahnas.report.comparison import Sheet

Told = Mapping[str, Any]
NONE = "–"
SEARCHED = "noah"  # the row that is compared with the others
STAGES = ("supernet", "search", "epochs", "retrain", "rates")


def sheets(told: Told) -> list[Sheet]:
    """All tables, the most important first."""
    found = [_groups(told), _tasks(told), _costs(told), _rates(told)]
    found += [_answers(told, key, title) for key, title in ANSWERED.items()]
    return [sheet for sheet in (*found, _curve(told), _held(told)) if sheet.rows]


def sentences(told: Told) -> list[str]:
    """The answers, a sentence each."""
    asked = ("singles", "singles_alike", "feasible", "feasible_alike")
    found = [row["sentence"] for key in asked for row in told["answers"][key]]
    curve = told["curve"]
    return found + [row["sentence"] for row in (curve["held"] if curve else ())]


def to_markdown(told: Told, plots: Sequence[str] = ()) -> str:
    """The whole report, with links to its plots."""
    about = told["about"]
    parts = [f"# {told['title']}", _heading(about)]
    if sentences(told):
        parts += ["## Answers", "\n".join(f"- {each}" for each in sentences(told))]
    parts += [sheet.to_markdown() for sheet in sheets(told)]
    parts += [f"![{name}]({name})" for name in plots]
    parts += ["## Notes", "\n".join(f"- {note}" for note in told["notes"])]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return "\n\n".join([*parts, f"Written by {versions}."]) + "\n"


def heading(told: Told) -> str:
    """What the table was made with."""
    return f"{told['title']} · {_heading(told['about'])}"


def _heading(about: Told) -> str:
    seeds = ", ".join(map(str, about["seeds"]))
    precision = ", ".join(about["precision"]) or NONE
    beside = f" beside the classifier of {about['beside']}" if about["beside"] else ""
    return (
        f"{about['backbone']} · space {about['space']}, at most {about['params']:,} parameters"
        f"{beside} · "
        f"recipe {about['recipe']['name']} · seeds {seeds} · {precision}"
    )


# --- tables ----------------------------------------------------------------------------------


def _score(found: Told | None) -> str:
    if found is None:
        return NONE
    half = "" if found["half"] is None else f" ± {100 * found['half']:.1f}"
    return f"{100 * found['mean']:.1f}{half}"


def _groups(told: Told) -> Sheet:
    groups = told["groups"]
    heads = [
        group
        if len(found["tasks"]) == found["of"]
        else f"{group}, {len(found['tasks'])} of {found['of']}"
        for group, found in groups.items()
    ]
    rows = [
        (
            row["title"],
            *(_score(row["groups"][group]) for group in groups),
            _score(row["mean"]),
            f"{row['params']:,.0f}",
            str(row["runs"]),
        )
        for row in told["rows"].values()
    ]
    return Sheet(
        "Accuracy on test, %, means of tasks",
        ("", *heads, "mean of group means", "parameters", "runs"),
        tuple(rows),
    )


def _tasks(told: Told) -> Sheet:
    tasks = told["about"]["tasks"]
    rows = [
        (row["title"], *(_score(row["tasks"].get(task)) for task in tasks))
        for row in told["rows"].values()
    ]
    return Sheet("Accuracy on test, %, by task", ("", *tasks), tuple(rows))


def _costs(told: Told) -> Sheet:
    def cost(found: Told) -> str:
        if not found["passes"]:
            return NONE
        return f"{found['passes'] / 1000:,.0f}k ({found['seconds']:,.0f} s)"

    rows = []
    for row in told["rows"].values():
        stages = [row["cost"][stage] for stage in STAGES]
        whole = {key: sum(stage[key] for stage in stages[:-1]) for key in ("passes", "seconds")}
        rows.append((row["title"], *map(cost, stages[:-1]), cost(whole), cost(stages[-1])))
    return Sheet(
        "Passes (seconds), mean of a run",
        ("", "supernet", "search", "epochs", "retrain", "together", "choosing rates, a task"),
        tuple(rows),
    )


def _rates(told: Told) -> Sheet:
    kinds = list(dict.fromkeys(kind for found in told["rates"].values() for kind in found))

    def chosen(found: Told | None) -> str:
        return NONE if found is None else f"{found['chosen']:g}{'*' * found['at_edge']}"

    rows = [
        (task, *(chosen(found.get(kind)) for kind in kinds))
        for task, found in told["rates"].items()
    ]
    title = "Learning rates chosen on val (* an end of those tried)"
    return Sheet(title, ("", *kinds), tuple(rows))


ANSWERED = {
    "singles": "NOAH less each single module at equal budget, points on test",
    "singles_alike": "NOAH less each single module, under other recipes, points on test",
    "feasible": "Searches less a random feasible architecture, points on test",
    "feasible_alike": "NOAH less a random feasible architecture, under other recipes, points on "
    "test",
    "others": "NOAH less other rows, points on test",
    "others_alike": "NOAH less all weights and the classifier, under other recipes, points on test",
    "retrained": "Rows retrained by a dearer recipe less the same by a cheaper one, points on test",
}


def _answers(told: Told, key: str, title: str) -> Sheet:
    titles = told["titles"]
    rows = [
        (
            titles[row["against"]]
            if row["row"] == SEARCHED
            else f"{titles[row['row']]} less {titles[row['against']]}",
            difference(row["difference"]),
            _between(row["over_tasks"]),
            f"{row['won']} of {row['pairs']}",
            f"{row['p_corrected']:.3g}",
            f"{row['over_tasks']['p']:.3g} (at least {row['over_tasks']['smallest_p']:.2g})",
            row["answer"] if row["answer"] != "cannot be told" else row["verdict"],
        )
        for row in told["answers"][key]
    ]
    head = ("", "difference", "over tasks, by t", "higher in", "p, Holm", "p over tasks", "answer")
    return Sheet(title, head, tuple(rows))


def _curve(told: Told) -> Sheet:
    curve = told["curve"]
    rows = [
        (
            point["title"],
            f"{point['passes'] / 1000:,.0f}k",
            f"{point['share']:.1%}",
            f"{point['rates'] / 1000:,.0f}k" if point["rates"] else NONE,
            _interval(point["accuracy"]),
        )
        for point in (curve["points"].values() if curve else ())
    ]
    over = f"{len(curve['tasks'])} tasks, seeds {curve['seeds']}" if curve else ""
    head = ("", "passes", "share", "choosing rates", "accuracy, %")
    return Sheet(f"Accuracy against passes, {over}", head, tuple(rows))


def _held(told: Told) -> Sheet:
    curve, titles = told["curve"], told["titles"]
    keeps = {True: "yes", False: "not shown", None: NONE}
    rows = [
        (
            titles[row["row"]],
            titles[row["against"]],
            f"{row['share']:.1%}",
            difference(row["difference"]),
            _between(row["over_tasks"]),
            str(row["pairs"]),
            "on these tasks" if row["keeps"] and not row["keeps_beyond"] else keeps[row["keeps"]],
        )
        for row in (curve["held"] if curve else ())
    ]
    head = ("", "less", "share of its passes", "difference", "over tasks, by t", "pairs", "kept")
    return Sheet("Recipes less dearer ones, points on test", head, tuple(rows))


def difference(found: Told) -> str:
    """A mean difference with its interval, in points."""
    if found["low"] is None:
        return f"{100 * found['mean']:+.1f}"
    return f"{100 * found['mean']:+.1f} {_between(found)}"


def _between(found: Told) -> str:
    if found["low"] is None:
        return NONE
    return f"[{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"


def _interval(found: Told) -> str:
    if found["low"] is None:
        return f"{100 * found['mean']:.1f}"
    return f"{100 * found['mean']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
