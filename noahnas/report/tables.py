"""Results as rich tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table


def result_table(result: Mapping[str, Any], run: str) -> Table:
    """What a run measured, with unit, split, seed and cost."""
    title = f"{result.get('strategy', 'retrain')} on {result['data']} · seed {result['seed']}"
    table = Table(title=title, caption=run, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    trained = "trained whole" if result["full"] else "frozen"
    table.add_row("backbone", f"{result['backbone']} ({trained})")
    if "space" in result:
        ended = ", space exhausted" if result["exhausted"] else ""
        table.add_row(
            "space", f"{result['space']} · {result['evaluations']} archs evaluated{ended}"
        )
        table.add_row("budget", budget_told(result["budget"], result["binding"]))
        table.add_row("val, random archs", spread_told(result["spread"]))
    for module, part in result["arch"].items():
        dims = part if isinstance(part, list) else part["dim"]
        table.add_row(f"  {module}", " ".join(str(dim) for dim in dims))
    if not result["arch"]:
        table.add_row("  arch", "nothing but the head")
    what = "tuned" if result["full"] else "prompt"
    table.add_row(
        "parameters", f"{result['params']:,} {what}, {result['params_with_head']:,} with head"
    )
    if "val" in result:
        table.add_row("val, shared weights", scores(result["val"]))
    table.add_row("test, retrained", scores(result["test"]))
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


def budget_told(budget: int | None, binding: Mapping[str, Any]) -> str:
    """Whether the budget leaves anything to search for."""
    if budget is None:
        return "none: the largest arch is allowed"
    largest = "feasible" if binding["largest_feasible"] else "infeasible"
    return f"{budget:,} · largest arch {largest} · {binding['share']:.1%} of the paper prior passes"


def spread_told(spread: Mapping[str, Any]) -> str:
    """Whether random archs differ by more than the noise of the val split."""
    told = (
        f"{spread['mean']:.1%} ± {spread['sd']:.1%}, sd of {spread['archs']} · "
        f"binomial error {spread['error']:.1%}"
    )
    return told if spread["sd"] > spread["error"] else f"{told}: ranks noise"


def scores(measured: Mapping[str, Any]) -> str:
    """Accuracy, class-balanced accuracy and loss of one evaluation."""
    return (
        f"{measured['accuracy']:.1%} accuracy · {measured['balanced_accuracy']:.1%} class-balanced "
        f"· loss {measured['loss']:.3f} · {measured['passes']} images"
    )


def checked_table(file: str, found: Mapping[str, Any]) -> Table:
    """A space file without faults: its size and what its architectures cost."""
    table = Table(title=f"{file}: no faults", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("bound to", f"{found['blocks']} blocks of width {found['width']}")
    table.add_row("architectures", f"{found['size']} distinct, over {found['genes']} genes")
    table.add_row("prompt parameters", f"{found['cheapest']:,} to {found['dearest']:,}")
    if found["budget"] is None:
        table.add_row("budget", "none")
    else:
        share = found["feasible_share_of_paper_prior"]
        table.add_row("budget", f"{found['budget']:,} parameters")
        table.add_row("feasible", f"{found['feasible']}; {share:.1%} of the paper prior")
    return table


def data_table(found: Mapping[str, Any]) -> Table:
    """What was found in a data set."""
    table = Table(title=f"{found['data']}: fit for use", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    images = found["images"]
    table.add_row("images", " · ".join(f"{count:,} {split}" for split, count in images.items()))
    size = " × ".join(map(str, found["size"]))
    megabytes = sum(images.values()) * 3 * math.prod(found["size"]) / 1e6
    table.add_row("decoded to", f"{size} pixels, RGB, uint8: {megabytes:.1f} MB")
    table.add_row("classes", _classes_told(found["classes"]))
    table.add_row("digest", found["digest"])
    skipped = found["skipped"]
    if skipped:
        more = f"; {len(skipped) - 3} more" if len(skipped) > 3 else ""
        table.add_row("unreadable", f"{len(skipped)} left out: {'; '.join(skipped[:3])}{more}")
    if found["overlap"]:
        done = "kept: fixed lists" if found["overlap_kept"] else "left out of the earlier split"
        told = "1 picture" if found["overlap"] == 1 else f"{found['overlap']} pictures"
        table.add_row("in two splits", f"{told}, {done}")
    how = "decoded now" if found["decoded_now"] else "from the cache"
    table.add_row("seconds", f"{found['seconds']:.2f}, {how if found['cache'] else 'not cached'}")
    if found["cache"]:
        table.add_row("cache", found["cache"])
    if "contact_sheet" in found:
        table.add_row("contact sheet", found["contact_sheet"])
    return table


def _classes_told(classes: Mapping[str, Mapping[str, int]]) -> str:
    """How many classes, their names, and how uneven they are."""
    counts = [sum(splits.values()) for splits in classes.values()]
    names = ", ".join(list(classes)[:10]) + (", …" if len(classes) > 10 else "")
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    least = min(splits["train"] for splits in classes.values())
    return f"{len(classes)}: {names}; {each} images each, at least {least} of them in train"


def space_table(rows: list[tuple[str, str, str, str]]) -> Table:
    """Shipped spaces: name, size, budget, description."""
    table = Table(caption="sizes at 12 blocks; the budget is not applied")
    for heading in ("space", "architectures", "budget", "description"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "space")
    for row in rows:
        table.add_row(*row)
    return table
