"""The table of micro-VTAB as plain values, from the results that lie in its directory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from typing import Any

from noahnas.compare.winners import usage
from noahnas.data.micro_vtab import GROUPS, TASKS
from noahnas.protocols.answers import Scores, compared, differences, half_width
from noahnas.protocols.cells import Cell, best_rate
from noahnas.protocols.curve import CHARGED, curve
from noahnas.protocols.designs import SINGLES, design, rated, row_of, title_of
from noahnas.protocols.micro import NAME, Asked, Figure, bound, order
from noahnas.protocols.micro_notes import NEAR, notes
from noahnas.protocols.runs import finished, unplaced
from noahnas.report.micro import SEARCHED
from noahnas.rundir import RunDirectory, versions
from noahnas.space import Arch, Space
from noahnas.space.check import binding

SEARCHES = (SEARCHED, "random")


def summary(out: Path, asked: Asked) -> dict[str, Any]:
    """All that is told of the runs in `out` that were ever asked for and are done."""
    plan = asked.plan()
    results = _charged(plan, finished(out, plan))
    done = [figure for figure in asked.figures if figure.name in results]
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for figure in done:
        accuracy = results[figure.name]["test"]["accuracy"]
        scores.setdefault(figure.row, {}).setdefault(figure.task, {})[figure.seed] = accuracy
    names = list(dict.fromkeys(figure.row for figure in sorted(asked.figures, key=_by_row)))
    titles = {name: title_of(name) for name in names}
    tasks = [task for task in TASKS if any(figure.task == task for figure in asked.figures)]
    rates = _rates(out, asked, results)
    rows = {
        name: _row(name, scores[name], tasks, [f for f in done if f.row == name], results, rates)
        for name in names
        if name in scores
    }
    space = bound(asked.settings, tasks[0])
    others = [n for n in rows if n not in (*SINGLES, "feasible") and "@" not in n and n != SEARCHED]
    told: dict[str, Any] = {
        "title": f"{NAME}: {asked.settings.protocol.table}",
        "about": _about(asked, space, tasks, out, plan),
        "rows": rows,
        "titles": titles,
        "groups": _groups(tasks),
        "rates": rates,
        "budget": _budget(asked, space, done, results),
        "answers": {
            "singles": differences(scores, SEARCHED, [s for s in SINGLES if s in rows], titles),
            "feasible": compared(scores, [(s, "feasible") for s in SEARCHES], titles),
            "singles_alike": compared(scores, alike(asked, rows, SINGLES), titles),
            "feasible_alike": compared(scores, alike(asked, rows, ["feasible"]), titles),
            "others": differences(scores, SEARCHED, others, titles),
            "others_alike": compared(scores, alike(asked, rows, ["linear", "full"]), titles),
            "retrained": compared(scores, retrained(rows), titles),
        },
        "curve": curve(scores, {name: row["cost"] for name, row in rows.items()}, titles),
        "winners": _winners(asked, done, results),
        "apart": apart(done, results),
        "missing": [figure.name for figure in asked.figures if figure.name not in results],
        "runs": {f.name: _run(results[f.name]) for f in done},
    }
    told["notes"] = list(notes(told, asked))
    return told


def alike(asked: Asked, rows: Collection[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Rows of NOAH, each with one row of each kind of `others` that counts as retrained alike.

    That is one by the same recipe, or else by one that shares the learning rates of the same
    trials (`rates_from`). What the table's own recipe says of both is asked elsewhere.
    """
    own = asked.settings.recipe
    trials = {"": own.name} | {
        label: (recipe.protocol.rates_from if recipe.protocol else "") or label
        for label, recipe in asked.recipes.items()
    }
    found = []
    for label, base in product(trials, others):
        shared = [label, *(each for each in trials if trials[each] == trials[label])]
        at = {each: f"@{each}" if each else "" for each in shared}
        noah = f"{SEARCHED}{at[label]}"
        like = [f"{base}{at[each]}" for each in shared if f"{base}{at[each]}" in rows]
        if noah in rows and like and (noah, like[0]) != (SEARCHED, base):
            found.append((noah, like[0]))
    return found


def retrained(rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each kind of row that is not searched, under two recipes: the dearer retraining first.

    A row that gains nothing by more passes was trained to convergence. Random designs are left
    out, as the curve shows them.
    """
    found = []
    for base in ("linear", "full", *SINGLES):
        names = [name for name in rows if name.partition("@")[0] == base]
        names.sort(key=lambda name: -rows[name]["cost"]["retrain"]["passes"])
        found += list(combinations(names, 2))
    return found


def apart(done: Sequence[Figure], results: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Pairs of random search and NOAH, and how many of them searched different supernets.

    They do where weights were not kept and the supernet was trained again for one of the two. What
    30 random archs score under its weights tells it.
    """
    names = {(f.row, f.task, f.seed): f.name for f in done}
    both = [
        (results[name]["spread"], results[names[SEARCHED, task, seed]]["spread"])
        for (row, task, seed), name in names.items()
        if row == "random" and (SEARCHED, task, seed) in names
    ]
    keys = ("mean", "sd")
    differ = [one for one, other in both if any(one[key] != other[key] for key in keys)]
    return {"pairs": len(both), "apart": len(differ)}


def _charged(
    plan: Sequence[Cell], results: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Results with what their rows are charged.

    Candidates count as a search; a winner that is retrained costs the search that found it, too.
    """
    found = dict(results)
    for cell in plan:
        if cell.winner_of in results and cell.name in results:
            cost = results[cell.winner_of]["cost"] | results[cell.name]["cost"]
            found[cell.name] = results[cell.name] | {"cost": cost}
        if not cell.candidates or cell.name not in results:
            continue
        search = {"passes": 0, "seconds": 0.0}
        for name in cell.candidates:
            own = results.get(name, {})
            if "cost" in own:  # another diverged, or is gone
                search["passes"] += own["cost"]["retrain"]["passes"] + own["val"]["passes"]
                search["seconds"] += own["cost"]["retrain"]["seconds"]
        cost = results[cell.name]["cost"] | {"search": search}
        found[cell.name] = results[cell.name] | {"cost": cost}
    return found


def _by_row(figure: Figure) -> tuple[int, str]:
    return order(figure)[1:3]


def _about(
    asked: Asked, space: Space, tasks: Sequence[str], out: Path, plan: Sequence[Any]
) -> dict[str, Any]:
    settings = asked.settings
    bind = binding(space)
    begun = [cell for cell in plan if (out / cell.name / "run.json").is_file()]
    runs = [RunDirectory(out / cell.name).about for cell in begun]
    return {
        "backbone": unplaced(settings.backbone),
        "digests": {
            "backbone": runs[0]["digests"]["backbone"] if runs else None,
            "data": {run["inputs"]["data"]: run["digests"]["data"] for run in runs},
        },
        "space": settings.space.name,
        "params": space.limits[1],
        "beside": tasks[0] if space.budget and space.budget.head else "",
        "binding": asdict(bind) | {"binds": bind.binds},
        "recipe": settings.recipe.to_dict(),
        "recipes": {label: recipe.to_dict() for label, recipe in asked.recipes.items()},
        "tasks": list(tasks),
        "seeds": sorted({figure.seed for figure in asked.figures}),
        "precision": _by(begun, [run["precision"] for run in runs]),
        "device": _by(begun, [run["device"] for run in runs]),
        "torch": _by(begun, [run["versions"]["torch"] for run in runs]),
        "versions": versions(),
    }


def _by(begun: Sequence[Cell], values: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many runs of each row have each value, the most common value first."""
    found: dict[str, dict[str, int]] = {}
    for cell, value in zip(begun, values, strict=True):
        rows = found.setdefault(value, {})
        rows[cell.row.name] = rows.get(cell.row.name, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))


def _groups(tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The tasks of each group that are in the table, and how many it has."""
    found = {}
    for group in GROUPS:
        members = [name for name, task in TASKS.items() if task.group == group]
        here = [name for name in members if name in tasks]
        if here:
            found[group] = {"tasks": here, "of": len(members)}
    return found


def _run(result: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("arch", "params", "test", "val", "cost", "evaluations", "epochs")
    return {key: result[key] for key in keys if key in result}


# --- rows ------------------------------------------------------------------------------------


def _row(
    name: str,
    scores: Scores,
    tasks: Sequence[str],
    figures: Sequence[Figure],
    results: Mapping[str, Mapping[str, Any]],
    rates: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """One row: means over seeds by task, by group and over all, its size and its cost."""
    groups = {group: found["tasks"] for group, found in _groups(tasks).items()}
    own = [results[figure.name] for figure in figures]
    chosen = _tag(name)
    tried = [found[chosen]["passes"] for found in rates.values() if chosen in found]
    waited = [found[chosen]["seconds"] for found in rates.values() if chosen in found]
    return {
        "title": title_of(name),
        "tasks": {
            task: _mean(list(by_seed.values())) | {"seeds": {str(s): a for s, a in by_seed.items()}}
            for task, by_seed in scores.items()
        },
        "groups": {group: _over(scores, [members]) for group, members in groups.items()},
        "mean": _over(scores, list(groups.values())),
        "params": statistics.fmean(result["params"] for result in own),
        "runs": len(own),
        "cost": {
            stage: {
                key: statistics.fmean(result["cost"].get(stage, {}).get(key, 0) for result in own)
                for key in ("passes", "seconds")
            }
            for stage in CHARGED
        }
        | {
            "rates": {
                "passes": statistics.fmean(tried) if tried else 0.0,
                "seconds": statistics.fmean(waited) if waited else 0.0,
            }
        },
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": statistics.fmean(values), "half": half_width(values), "n": len(values)}


def _over(scores: Scores, groups: Sequence[Sequence[str]]) -> dict[str, Any] | None:
    """The mean of groups' means, with its interval over the seeds that all tasks have.

    None unless all tasks have a score.
    """
    tasks = [task for group in groups for task in group]
    if any(task not in scores for task in tasks):
        return None

    def mean(score: Callable[[str], float]) -> float:
        return statistics.fmean(statistics.fmean(score(t) for t in group) for group in groups)

    common = sorted(set.intersection(*(set(scores[task]) for task in tasks)))
    by_seed = [mean(lambda task, s=seed: scores[task][s]) for seed in common]  # type: ignore[misc]
    whole = mean(lambda task: statistics.fmean(scores[task].values()))
    return {"mean": whole, "half": half_width(by_seed), "n": len(common)}


def _tag(name: str) -> str:
    """The kind of a row's learning rates, with its recipe."""
    row = row_of(name)
    return rated(row) + (f"@{row.recipe}" if row.recipe else "")


def _rates(
    out: Path, asked: Asked, results: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """For each task and kind what was tried on val, and what was chosen."""
    found: dict[str, dict[str, Any]] = {}
    for cell in asked.plan():
        if not cell.rates or _tag(cell.row.name) in found.get(cell.task, {}):
            continue
        ends = cell.name in results
        if not ends and any(name not in results for name, _ in cell.rates):
            continue  # more are to be tried
        listed: dict[float, list[str]] = {}
        for name, rate in cell.rates:
            listed.setdefault(rate, []).append(name)
        runs = {  # without rates that are listed since the row was trained, and not tried yet
            rate: [results[name] for name in names]
            for rate, names in listed.items()
            if all(name in results for name in names)
        }
        whole = [rate for rate, tried in runs.items() if all("val" in result for result in tried)]
        costs = [r["cost"]["retrain"] for tried in runs.values() for r in tried if "cost" in r]
        chosen = _rate(out / cell.name) if ends else best_rate(cell.rates, results)
        found.setdefault(cell.task, {})[_tag(cell.row.name)] = {
            "tried": {
                f"{rate:g}": statistics.fmean(result["val"]["accuracy"] for result in runs[rate])
                for rate in whole
            },
            "diverged": [rate for rate in runs if rate not in whole],
            "chosen": chosen,
            "at_edge": len(runs) > 1 and chosen in (min(runs), max(runs)),
            "passes": sum(cost["passes"] for cost in costs),
            "seconds": sum(cost["seconds"] for cost in costs),
        }
    return found


def _rate(path: Path) -> float:
    """The learning rate that a run was retrained with."""
    return float(RunDirectory(path).about["inputs"]["recipe"]["retrain"]["lr"])


# --- the budget, and who won -----------------------------------------------------------------


def _budget(
    asked: Asked, space: Space, done: Iterable[Figure], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """How much of the budget winners use, and single modules; `space` is the first task's."""
    tasks = {figure.task for figure in done}  # a budget that counts the head leaves each its own
    limits = {task: bound(asked.settings, task).limits[1] for task in tasks}
    used: dict[str, list[float]] = {}
    for figure in done:
        limit, base = limits[figure.task], figure.row.partition("@")[0]
        if limit and base not in ("linear", "full"):
            used.setdefault(figure.row, []).append(results[figure.name]["params"] / limit)
    found = {
        row: {
            "least": min(shares),
            "mean": statistics.fmean(shares),
            "most": max(shares),
            "near": sum(share >= 1 - NEAR for share in shares),
            "of": len(shares),
        }
        for row, shares in used.items()
    }
    singles = {
        name: design(row_of(name), space, "", 0).dims(module)[0]
        for name, module in (("adapter", "adapter"), ("lora", "lora"), ("vpt", "vpt"))
        if name in used
    }
    return {"limit": space.limits[1], "used": found, "dims": singles}


def _winners(
    asked: Asked, done: Sequence[Figure], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Per task, which blocks NOAH's winners use with which module, and how wide."""
    space = bound(asked.settings, asked.figures[0].task)
    archs: dict[str, list[Arch]] = {}
    for figure in done:
        if figure.row == SEARCHED:
            arch = Arch.from_dict(results[figure.name]["arch"])
            archs.setdefault(figure.task, []).append(arch)
    tasks = {task: {"modules": usage(space, found)} for task, found in archs.items()}
    return {"blocks": space.blocks, "tasks": tasks}
