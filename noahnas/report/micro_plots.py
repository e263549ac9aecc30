"""micro-VTAB as plots, from what micro-vtab.json holds: PNG and SVG, without a display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from noahnas.report.comparison_plots import INK, SIZE, saved, style_of, usage_maps
from noahnas.report.micro import SEARCHED

FAR = 0.05  # of accuracy; twice as far below all recipes a row is named and not drawn
WIDE, HIGH = 1.09, 0.5  # of a dot of the curve: a factor of passes, and points of accuracy

Told = Mapping[str, Any]


def plots(told: Told) -> dict[str, bytes]:
    """File names and contents of the plots that there is something for."""
    drawn: dict[str, Callable[[], Figure]] = {}
    if told["curve"]:
        drawn["curve"] = lambda: curve(told)
    if told["winners"]["tasks"]:
        drawn["winners"] = lambda: winners(told)
    if any(told["answers"].values()):
        drawn["differences"] = lambda: differences(told)
    return saved(drawn)


def curve(told: Told) -> Figure:
    """Accuracy against passes, numbered from the highest; a line joins recipes ahead of cheaper."""
    found = told["curve"]
    figure = Figure(figsize=(10.4, 5.4), layout="constrained")
    ax, key = figure.subplots(1, 2, width_ratios=(5, 3))
    key.axis("off")
    front: list[tuple[float, float]] = []
    for point in found["points"].values():  # from the cheapest on
        x, mean = point["passes"], 100 * point["accuracy"]["mean"]
        if point["recipe"] and (not front or mean > front[-1][1]):
            front.append((x, mean))
    ax.plot(*zip(*front, strict=True), color=style_of(0)[0], linewidth=1.4)
    ordered = sorted(found["points"].values(), key=lambda point: -point["accuracy"]["mean"])
    recipes = [point["accuracy"]["mean"] for point in ordered if point["recipe"]]
    floor = min(recipes) - 2 * max(max(recipes) - min(recipes), FAR)
    below = [point for point in ordered if point["accuracy"]["mean"] < floor]
    ordered = ordered[: len(ordered) - len(below)]
    places: list[tuple[float, float]] = []  # of dots that are drawn, recipes first
    for number, point in sorted(enumerate(ordered, 1), key=lambda item: not item[1]["recipe"]):
        colour = style_of(0 if point["recipe"] else 7)[0]
        mean = 100 * point["accuracy"]["mean"]
        x = _beside(point["passes"], mean, places)
        places.append((x, mean))
        low, high = (point["accuracy"][end] for end in ("low", "high"))
        if low is not None:
            ax.plot([x, x], [100 * low, 100 * high], color=colour, linewidth=1, alpha=0.7)
        ax.plot(x, mean, "o", color=colour, markersize=11)
        centred = {"ha": "center", "va": "center", "color": "white"}
        ax.text(x, mean, str(number), fontsize=SIZE - 1, **centred)
        label = f"{number}  {_label(point, told['about']['recipe']['name'])}"
        at = 1 - (number - 0.5) / len(ordered)
        ink = colour if point["recipe"] else INK
        key.text(0, at, label, fontsize=SIZE, color=ink, va="center")
    reference = found["points"][found["reference"]]["passes"]
    for share in (1 / 5, 1 / 20):
        ax.axvline(share * reference, color=INK, linewidth=0.8, linestyle=":")
        ax.text(
            share * reference,
            0.01,
            f" 1/{round(1 / share)}",
            transform=ax.get_xaxis_transform(),
            fontsize=SIZE - 1,
            color=INK,
        )
    ax.set_xscale("log")
    ax.set_xlabel("passes a run: supernet, search and retraining")
    ax.set_ylabel("accuracy on test, %")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, axis="y", alpha=0.2)
    seeds = ", ".join(map(str, found["seeds"]))
    text = f"{', '.join(found['tasks'])} · seeds {seeds} · bars: 95 % intervals\n"
    text += "blue: NOAH by each recipe; dots that would overlap stand beside each other"
    for point in below:
        text += f"\nfar below: {point['title']}, {100 * point['accuracy']['mean']:.1f} %"
    _caption(figure, told, text)
    return figure


def _beside(passes: float, mean: float, places: Sequence[tuple[float, float]]) -> float:
    """Where a dot stands: at its passes, or as little beside them as leaves others free."""
    for step in range(2 * len(places) + 1):
        x = passes * WIDE ** ((step + 1) // 2 * (-1) ** step)
        if all(max(x, o) >= WIDE * min(x, o) or abs(mean - y) >= HIGH for o, y in places):
            break
    return float(x)


def _label(point: Told, recipe: str) -> str:
    """The recipe of a search; what else a row is."""
    title: str = point["title"]
    return (title.partition(" @ ")[2] or recipe) if point["recipe"] else title


def winners(told: Told) -> Figure:
    """Per task what NOAH's winners use: in how many a module is in a block, and how wide."""
    tasks = told["winners"]["tasks"]
    figure = usage_maps(tasks, dict.fromkeys(tasks, "winners"), told["winners"]["blocks"])
    _caption(figure, told, "retrained winners of NOAH, all seeds")
    return figure


def differences(told: Told) -> Figure:
    """NOAH and random search less every other row, in points, with 95 % intervals."""
    families = told["answers"].items()
    rows = [row for name, family in families if name != "retrained" for row in family]
    labels = [
        told["titles"][row["against"]]
        + ("" if row["row"] == SEARCHED else f"\n({told['titles'][row['row']]})")
        for row in rows
    ]
    figure = Figure(figsize=(7.4, 1.2 + 0.42 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for i, row in enumerate(rows):
        found = row["difference"]
        low, high = (found["mean"] if found[e] is None else found[e] for e in ("low", "high"))
        ax.plot([100 * low, 100 * high], [i, i], color=INK, linewidth=1.4)
        ax.plot(100 * found["mean"], i, "o", color=style_of(0)[0])
    ax.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(rows)), labels, fontsize=SIZE)
    ax.set_ylim(len(rows) - 0.4, -0.7)
    ax.set_xlabel("NOAH, or what stands in brackets, above it, points on test")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, axis="x", alpha=0.2)
    _caption(figure, told, "tasks and seeds that both have; 95 % intervals over tasks, then seeds")
    return figure


def _caption(figure: Figure, told: Told, text: str) -> None:
    about = told["about"]
    whole = f"{about['backbone']} · {about['space']} · recipe {about['recipe']['name']}\n{text}"
    figure.supxlabel(whole, fontsize=SIZE - 1, color=INK)
