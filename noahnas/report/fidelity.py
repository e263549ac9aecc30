"""A diagnosis as rows, and as a rich table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Rows = Sequence[tuple[str, str]]


def diagnosis_rows(found: Mapping[str, Any]) -> Rows:
    """How well a supernet ranks, with intervals, what noise allows, and what speaks against it."""
    epochs, seeds = found["stage"]["epochs"], found["seeds"]
    which = "seed" if len(seeds) == 1 else "seeds"
    long = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    cost = found["cost"]
    rows = [
        ("architectures", f"{found['archs']} feasible draws of the {found['prior']} prior"),
        ("trained alone", f"on train, {long}, {which} {', '.join(map(str, seeds))}"),
        ("scored on val", f"{found['images']} images · binomial error {found['error']:.1%}"),
        ("val, trained alone", f"{found['mean']:.1%} ± {found['sd']:.1%}, sd of the draws"),
        ("Kendall τ", _estimate(found["kendall"])),
        ("Spearman ρ", _estimate(found["spearman"])),
        ("Kendall τ, by loss", _estimate(found["kendall_by_loss"])),
        ("Kendall τ, by size", _estimate(found["kendall_by_params"])),
    ]
    if found["ceiling"] is not None:
        rows.append(("τ that noise allows", f"about {found['ceiling']:.2f}"))
    if found["agreement"] is not None:
        rows.append(("τ between seeds", f"{found['agreement']:.2f}"))
    rows += [
        (f"{of} of the search", _judged(found[of])) for of in ("winner", "median") if found[of]
    ]
    rows.append(("cost, trained alone", f"{cost['seconds']:.1f} s · {cost['passes']:,} passes"))
    return [*rows, *(("warning", warning) for warning in found["warnings"])]


def diagnosis_table(rows: Rows, run: str) -> Table:
    """The rows on a terminal."""
    table = Table(title=f"the supernet of {run}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, told in rows:
        table.add_row(name, told, style="yellow" if name == "warning" else None)
    return table


def _estimate(found: Mapping[str, Any]) -> str:
    """A correlation with its interval."""
    if found["value"] is None:
        return "undefined: all are tied"
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} · 95 % interval {found['low']:.2f} to {found['high']:.2f}"


def _judged(one: Mapping[str, Any]) -> str:
    shared = one["shared"]["accuracy"]
    return (
        f"{one['accuracy']:.1%} alone · {shared:.1%} shared weights · {one['params']:,} parameters"
    )
