"""A comparison as plots, from what compare.json holds: PNG and SVG, without a display."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Told = Mapping[str, Any]
FORMATS = ("png", "svg")
DPI = 150
INK, SIZE = "#444444", 8  # of small print
# Okabe & Ito's colours, which colour-blind readers tell apart; beyond eight, other dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
ENDS = ("low", "high")
DASHES = ("-", "--", ":", "-.")


def plots(told: Told) -> dict[str, bytes]:
    """File names and contents of all plots."""
    return saved(
        {
            "curves": lambda: curves(told),
            "differences": lambda: differences(told),
            "winners": lambda: winners(told),
            "genes": lambda: genes(told),
        }
    )


def saved(drawn: Mapping[str, Callable[[], Figure]]) -> dict[str, bytes]:
    """File names and contents of figures by name, in each format."""
    found = {}
    style: Any = {"svg.hashsalt": "noahnas", "svg.fonttype": "none"}  # the same bytes each time
    with mpl.rc_context(style):
        for name, draw in drawn.items():
            figure = draw()
            figure.set_dpi(DPI)
            FigureCanvasAgg(figure)
            figure.canvas.draw()
            figure.set_layout_engine("none")  # it is laid out, for both formats
            for kind in FORMATS:
                buffer = BytesIO()
                extra: dict[str, Any] = {"Date": None} if kind == "svg" else {}
                figure.savefig(buffer, format=kind, dpi=DPI, metadata=extra)
                found[f"{name}.{kind}"] = buffer.getvalue()
    return found


def curves(told: Told) -> Figure:
    """The best val accuracy so far against evaluations and against passes, with 95 % bands."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, axis in zip(axes, ("evaluations", "passes"), strict=True):
        found = told["curves"][axis]
        at = np.array(found["at"], float)  # (T)
        for i, (label, rows) in enumerate(found["entrants"].items()):
            mean, low, high = (
                100 * np.array([np.nan if v is None else v for v in rows[key]])  # (T)
                for key in ("mean", "low", "high")
            )
            colour, dash = style_of(i)
            line = {"color": colour, "linestyle": dash, "drawstyle": "steps-post"}
            ax.plot(at, mean, label=label, linewidth=1.6, **line)
            ax.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0, step="post")
        ax.set_xlabel("distinct evaluations" if axis == "evaluations" else "passes")
        _clean(ax, "y")
    axes[0].set_ylabel(f"best val accuracy so far, %\n({told['given']})")
    axes[1].legend(frameon=False, fontsize=SIZE)
    _caption(figure, told)
    return figure


def differences(told: Told) -> Figure:
    """The mean paired difference to the baseline with its interval, for each measure."""
    measures = told["tests"]["measures"]
    longest = max([len(rows) for rows in measures.values()] or [1])
    figure = Figure(
        figsize=(4.8 * max(1, len(measures)), 1.6 + 0.4 * longest), layout="constrained"
    )
    axes = np.atleast_1d(figure.subplots(1, max(1, len(measures))))
    if not measures:
        axes[0].text(0.5, 0.5, told["tests"]["reason"], ha="center")
        axes[0].set_axis_off()
    for ax, (measure, rows) in zip(axes, measures.items(), strict=False):
        for i, row in enumerate(rows):
            found = row.get("difference")
            if found is None:
                continue
            ends = [
                100 * (found["mean"] if v is None else v) for v in (found["low"], found["high"])
            ]
            ax.plot(ends, [i, i], color=INK, linewidth=1.4)
            ax.plot(100 * found["mean"], i, "o", color=style_of(0)[0])
            ax.annotate(
                f"{row['verdict']}, p = {row['p_corrected']:.3f}",
                (100 * found["mean"], i),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=SIZE,
                color=INK,
            )
        ax.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        ax.set_yticks(range(len(rows)), [row["label"] for row in rows])
        ax.set_ylim(len(rows) - 0.4, -0.7)
        ax.set_xlabel(f"{measure}: points above {told['tests']['against']}")
        _clean(ax, "x")
    _caption(figure, told)
    return figure


def winners(told: Told) -> Figure:
    """How often winners use each module in each block (left), and how wide (right)."""
    entrants = told["winners"]["entrants"] | {
        "random feasible draws": {"modules": told["winners"]["random"]["modules"]}
    }
    who = {
        label: "winners" if label in told["winners"]["entrants"] else "archs" for label in entrants
    }
    figure = usage_maps(entrants, who, told["winners"]["blocks"])
    _caption(figure, told)
    return figure


def usage_maps(entrants: Told, who: Mapping[str, str], blocks: int) -> Figure:
    """A pair of heat maps for each entrant: in how many archs a module is in a block; how wide.

    Args:
        entrants: by label, under "modules" what `usage` tells.
        who: by label, whose archs they are.
        blocks: of the backbone.
    """
    modules = list(next(iter(entrants.values()))["modules"])
    height = (0.8 + 0.24 * len(modules)) * len(entrants) + 0.5
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots(len(entrants), 2, squeeze=False)
    for row, (label, found) in zip(axes, entrants.items(), strict=True):
        table = found["modules"]
        share = np.array([table[m]["share"] for m in modules])  # (modules, blocks)
        dims = np.array([table[m]["dim"] for m in modules])  # (modules, blocks)
        most = np.array([table[m]["most"] for m in modules])  # (modules, blocks)
        told_parts = (
            (share, 100 * share, f"share of {who[label]}, %", "{:.0f}"),
            (dims / np.maximum(most, 1), dims, "mean dim where used", "{:.3g}"),
        )
        for ax, (heat, numbers, what, form) in zip(row, told_parts, strict=True):
            ax.imshow(heat, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for (y, x), value in np.ndenumerate(numbers):
                if value:
                    colour = "white" if heat[y, x] > 0.6 else INK
                    size = SIZE - 2 if blocks > 8 else SIZE
                    where = {"ha": "center", "va": "center"}
                    ax.text(x, y, form.format(value), fontsize=size, color=colour, **where)
            ax.set_title(f"{label}: {what}", fontsize=SIZE + 1, loc="left")
            ax.set_yticks(range(len(modules)), modules, fontsize=SIZE)
            ax.set_xticks(range(blocks), [str(b) for b in range(blocks)], fontsize=SIZE)
            ax.tick_params(length=0)
            for side in ax.spines.values():
                side.set_visible(False)
    axes[-1][0].set_xlabel("block", fontsize=SIZE)
    axes[-1][1].set_xlabel("block", fontsize=SIZE)
    return figure


def genes(told: Told, most: int = 15) -> Figure:
    """The share of the variance of val that each gene explains alone."""
    found = told["genes"]
    shares = list(found.get("share", {}).items())[:most]
    figure = Figure(figsize=(6.4, 1.4 + 0.26 * max(2, len(shares))), layout="constrained")
    ax = figure.subplots()
    if not shares:
        ax.text(0.5, 0.5, found["reason"], ha="center")
        ax.set_axis_off()
        return figure
    ax.barh(range(len(shares)), [100 * share for _, share in shares], color=COLOURS[0])
    ax.set_yticks(range(len(shares)), [name for name, _ in shares], fontsize=SIZE)
    ax.invert_yaxis()
    ax.set_xlabel("share of the variance of val accuracy, %, main effects")
    _clean(ax, "x")
    _caption(figure, told)
    return figure


def style_of(i: int) -> tuple[str, str]:
    """Colour and dash of the i-th entrant."""
    return COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]


def _clean(ax: Axes, grid: Literal["x", "y"]) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, axis=grid, alpha=0.2)


def _caption(figure: Figure, told: Told) -> None:
    about = told["about"]
    text = (
        f"{about['data']} · {about['backbone']} · {about['space']} · {told['of']} · the same "
        f"supernets, val split, seeds; {about['trials']} evaluations and {about['passes']:,} "
        f"passes each · {about['digest']}"
    )
    wide = int(figure.get_figwidth() * 17)  # characters that fit
    figure.supxlabel("\n".join(textwrap.wrap(text, wide)), fontsize=SIZE - 1, color=INK)
