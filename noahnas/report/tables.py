"""Results as rich tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def result_table(result: Mapping[str, Any], run: str) -> Table:
    """What a run measured, with unit, split, seed and cost."""
    title = f"{result.get('strategy', 'retrain')} on {result['data']} · seed {result['seed']}"
    table = Table(title=title, caption=run, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("backbone", f"{result['backbone']} (frozen)")
    if "space" in result:
        ended = ", space exhausted" if result["exhausted"] else ""
        table.add_row(
            "space", f"{result['space']} · {result['evaluations']} archs evaluated{ended}"
        )
    for module, part in result["arch"].items():
        dims = part if isinstance(part, list) else part["dim"]
        table.add_row(f"  {module}", " ".join(str(dim) for dim in dims))
    if not result["arch"]:
        table.add_row("  arch", "nothing but the head")
    table.add_row(
        "parameters", f"{result['params']:,} prompt, {result['params_with_head']:,} with head"
    )
    if "val" in result:
        table.add_row("val, shared weights", scores(result["val"]))
    table.add_row("test, retrained", scores(result["test"]))
    table.add_row("test, linear probe", scores(result["probe"]))
    for stage, cost in result["cost"].items():
        reused = f" (reused from {cost['reused']})" if "reused" in cost else ""
        told = f"{cost['seconds']:.1f} s · {cost['passes']:,} passes{reused}"
        table.add_row(f"cost, {stage}", told)
    return table


def scores(measured: Mapping[str, Any]) -> str:
    """Accuracy, class-balanced accuracy and loss of one evaluation."""
    return (
        f"{measured['accuracy']:.1%} accuracy · {measured['balanced_accuracy']:.1%} class-balanced "
        f"· loss {measured['loss']:.3f} · {measured['passes']} images"
    )


def space_table(rows: list[tuple[str, str, str, str]]) -> Table:
    """Shipped spaces: name, size, budget, description."""
    table = Table(caption="sizes at 12 blocks; the budget is not applied")
    for heading in ("space", "architectures", "budget", "description"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "space")
    for row in rows:
        table.add_row(*row)
    return table
