"""Results as rich tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def result_table(result: Mapping[str, Any], run: str) -> Table:
    """What a run measured, with unit, split, seed and cost."""
    alone = "retrain" if "arch" in result else "supernet"
    title = f"{result.get('strategy', alone)} on {result['data']} · seed {result['seed']}"
    table = Table(title=title, caption=run, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    trained = "trained whole" if result["full"] else "frozen"
    table.add_row("backbone", f"{result['backbone']} ({trained})")
    if "space" in result:
        ended = ", nothing more to propose" if result.get("exhausted") else ""
        evaluated = f"{result.get('evaluations', 0)} archs evaluated{ended}"
        table.add_row("space", f"{result['space']} · {evaluated}")
        table.add_row("budget", budget_told(result["budget"], result["binding"]))
        table.add_row("val, random archs", spread_told(result["spread"]))
    if "arch" in result:
        _add_arch(table, result)
    if "best_test" in result:
        best = result["best_test"]
        told = f"{best['accuracy']:.1%} accuracy after epoch {best['epoch']}: CHOSEN ON TEST"
        table.add_row("test, best epoch", told)
    if "probe" in result:
        table.add_row("test, linear probe", scores(result["probe"]))
    for stage, cost in result["cost"].items():
        reused = f" (reused from {cost['reused']})" if "reused" in cost else ""
        told = f"{cost['seconds']:.1f} s · {cost['passes']:,} passes{reused}"
        table.add_row(f"cost, {stage}", told)
    return table


def _add_arch(table: Table, result: Mapping[str, Any]) -> None:
    """The arch that was retrained, its size and its scores."""
    for module, part in result["arch"].items():
        values = {"dim": part} if isinstance(part, list) else part
        table.add_row(f"  {module}", _row(values["dim"]))
        for attribute in sorted(set(values) - {"dim"}):
            table.add_row(f"    {attribute}", _row(values[attribute]))
    if not result["arch"]:
        table.add_row("  arch", "nothing but the head")
    what = "tuned" if result["full"] else "prompt"
    table.add_row(
        "parameters", f"{result['params']:,} {what}, {result['params_with_head']:,} with head"
    )
    if "val" in result:
        weights = "shared weights" if "space" in result else "held out"
        table.add_row(f"val, {weights}", scores(result["val"]))
    if "front" in result:
        table.add_row("front, val", front_told(result["front"]))
    if "epochs" in result:
        table.add_row("epochs, on val", epochs_told(result["epochs"]))
    if "test" in result:
        table.add_row("test, retrained", scores(result["test"]))


def _row(values: Sequence[Any]) -> str:
    """A value for each block; – where the module is absent."""
    return " ".join("–" if value is None else str(value) for value in values)


def budget_told(budget: int | None, binding: Mapping[str, Any]) -> str:
    """Whether the budget leaves anything to search for."""
    if budget is None:
        return "none: the largest arch is allowed"
    largest = "feasible" if binding["largest_feasible"] else "infeasible"
    return f"{budget:,} · largest arch {largest} · {passing_told(binding)}"


def passing_told(binding: Mapping[str, Any]) -> str:
    """How much of the paper prior meets the budget; – where no draw tells."""
    share = "–" if binding["share"] is None else f"{binding['share']:.1%}"
    return f"{share} of the paper prior passes"


def spread_told(spread: Mapping[str, Any]) -> str:
    """Whether random archs differ by more than the noise of the val split."""
    told = (
        f"{spread['mean']:.1%} ± {spread['sd']:.1%}, sd of {spread['archs']} · "
        f"binomial error {spread['error']:.1%}"
    )
    if not spread["learned"]:
        return f"{told} · commonest class {spread['chance']:.1%}: the supernet has learned nothing"
    return told if spread["sd"] > spread["error"] else f"{told}: ranks noise"


def front_told(front: Mapping[str, Any]) -> str:
    """A front's hypervolume and its archs by rising cost; the last is the one retrained."""
    told = (
        f"{len(front['trials'])} archs · hypervolume {front['hypervolume']:.3f}, "
        f"accuracy against {front['axis']} up to {front['reference']:,.6g}"
    )
    rows = [f"{t['accuracy']:.1%} at {t['cost']:,.6g} {front['axis']}" for t in front["trials"]]
    return "\n".join([told, *rows])


def epochs_told(epochs: Mapping[str, Any]) -> str:
    """How many epochs the winner was retrained for, and what it scored on val with each number."""
    tried = ", ".join(f"{val['accuracy']:.1%} with {n}" for n, val in epochs["val"].items())
    return f"{epochs['taken']} taken: {tried}"


def scores(measured: Mapping[str, Any]) -> str:
    """Accuracy, class-balanced accuracy and loss of one evaluation."""
    return (
        f"{measured['accuracy']:.1%} accuracy · {measured['balanced_accuracy']:.1%} class-balanced "
        f"· loss {measured['loss']:.3f} · {measured['passes']} images"
    )
