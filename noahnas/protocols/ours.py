"""Our columns, out of the results of runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from noahnas.protocols.cells import Cell, Results, Settings
from noahnas.protocols.table import Column, over_seeds

HONEST = "Ours: tested once, at the last epoch."
LOUD = (
    "CHOSEN ON TEST: 'ours, best test epoch' is the best of the epochs tested on the way, as "
    "NOAH's code reports it. The test set chose it, so it is no estimate of what the network "
    "does on new images; compare methods by 'ours'."
)


def columns(
    settings: Settings,
    plan: Sequence[Cell],
    results: Results,
    measured: Callable[[Cell], Mapping[str, float]] | None = None,
) -> dict[str, list[Column]]:
    """For each row its column, and under the paper's protocol the best test epoch's as well.

    Args:
        settings: what all cells share.
        plan: the cells.
        results: of all of them.
        measured: accuracies of a cell by line of the table; by default its task's test accuracy.
    """
    found: dict[str, list[Column]] = {}
    for row in settings.rows:
        own = [cell for cell in plan if cell.row == row]
        last: dict[str, list[float]] = {}
        best: dict[str, list[float]] = {}
        for cell in own:
            result = results[cell.name]
            lines = measured(cell) if measured else {cell.task: result["test"]["accuracy"]}
            for line, accuracy in lines.items():
                last.setdefault(line, []).append(accuracy)
            if settings.paper:
                best.setdefault(cell.task, []).append(result["best_test"]["accuracy"])
        params = statistics.fmean(results[cell.name]["params"] for cell in own) if own else None
        scores = {line: over_seeds(values) for line, values in last.items()}
        found[row.name] = [Column(row.name, "ours", scores, params)]
        if settings.paper:
            scores = {line: over_seeds(values) for line, values in best.items()}
            found[row.name].append(Column(row.name, "ours, best test epoch", scores, params))
    return found


def notes(settings: Settings, paper: str | None) -> tuple[str, ...]:
    """What a reader of the table must know."""
    seeds = ", ".join(map(str, settings.seeds))
    told = [
        f"Top-1 accuracy on test, %. Backbone {settings.backbone}, recipe {settings.recipe.name}, "
        f"seed{'s' if len(settings.seeds) > 1 else ''} {seeds}. Parameters: tuned, head excluded. "
        + HONEST,
    ]
    told.append(f"Paper: {paper or 'figures that we could not source; they print as –'}.")
    return (*told, LOUD) if settings.paper else tuple(told)
