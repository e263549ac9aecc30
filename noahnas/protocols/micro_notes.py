"""What a reader of micro-VTAB's table must know beside its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noahnas.compare.statistics import FEW
from noahnas.data.micro_vtab import TASKS
from noahnas.protocols.designs import TRIED, title_of
from noahnas.protocols.micro import Asked
from noahnas.recipe import MIXED, Recipe
from noahnas.report.micro import SEARCHED

NEAR = 0.02  # of the budget: a winner that leaves no more of it unused has used it up


def notes(told: Mapping[str, Any], asked: Asked) -> Iterable[str]:
    """What a reader must know beside the figures."""
    about, count = told["about"], len(told["about"]["tasks"])
    first = asked.settings.protocol.seeds[0]
    yield (
        "Top-1 accuracy on test, tested once, at the last epoch, after training on train and val. "
        "± is half the 95 % interval over seeds (Student's t), tasks as they are. Parameters: "
        "tuned, head excluded."
    )
    yield (
        f"Learning rates are those of best val accuracy for each task, trained with seed {first} "
        "on train alone; designs of several modules share the one that is best on average for "
        f"{TRIED} random feasible designs."
    )
    followed = {"": asked.settings.recipe} | dict(asked.recipes)
    fixed = [recipe.name for recipe in followed.values() if not _tries(recipe)]
    if fixed:
        yield (
            "No learning rate is chosen for designs of several modules under "
            f"{', '.join(fixed)}: they train at the recipe's."
        )
    found = told["apart"]
    if found["apart"]:
        yield (
            f"In {found['apart']} of {found['pairs']} pairs random search and NOAH of one seed did "
            "not search the same supernet: it was trained again with that seed for one of the two, "
            "and differs. It is charged to each. Choosing learning rates is charged apart."
        )
    else:
        yield (
            "Random search and NOAH of one seed search the same supernet; it is charged to each. "
            "Choosing learning rates is charged apart."
        )
    for label, recipe in followed.items():
        if recipe.protocol and recipe.protocol.winner == "first-seed":
            yield (
                f"{title_of(f'{SEARCHED}@{label}' if label else SEARCHED)}: searched with seed "
                f"{first} alone, whose winner the other seeds retrain. Each is charged for the "
                "search; what another search would have found is in no interval."
            )
        if recipe.retrain_epochs:
            tried = ", ".join(map(str, recipe.retrain_epochs))
            yield (
                f"Designs of several modules under {recipe.name}: each run tries {tried} epochs on "
                "train and takes what is best on val; the row is charged for that (epochs)."
            )
    bind = about["binding"]
    beside = f" beside the classifier of {about['beside']}" if about["beside"] else ""
    largest = "feasible" if bind["largest_feasible"] else "infeasible"
    cut = "an unknown share" if bind["share"] is None else f"{1 - bind['share']:.1%}"
    for key, what in (("precision", "in {}"), ("device", "on {}"), ("torch", "with torch {}")):
        common, *others = about[key] or [""]
        for other in others:
            rows = ", ".join(f"{row} ({runs})" for row, runs in about[key][other].items())
            yield f"Runs {what.format(other)}, the others {what.format(common)}: {rows}."
    if told["curve"] and told["curve"]["left_out"]:
        yield (
            "Not in the curve, as they lack tasks or seeds of those that are: "
            f"{'; '.join(told['curve']['left_out'])}."
        )
    yield (
        f"The budget of {about['params']:,} parameters{beside} leaves out {cut} of uniform draws "
        f"({bind['draws']} drawn); the largest arch is {largest}"
        + ("." if bind["binds"] else ": it hardly binds, and the largest arch tends to win.")
    )
    used = told["budget"]["used"].get(SEARCHED)
    if used:
        yield (
            f"{used['near']} of {used['of']} winners of NOAH come within {NEAR:.0%} of the budget; "
            f"they use {used['least']:.1%} to {used['most']:.1%} of it, {used['mean']:.1%} on "
            "average."
        )
    edge = [
        f"{task} {kind} {found['chosen']:g}"
        for task, kinds in told["rates"].items()
        for kind, found in kinds.items()
        if found["at_edge"]
    ]
    if edge:
        told_edge = "; ".join(edge)
        yield f"Chosen at an end of the rates tried, so a better one may lie beyond: {told_edge}."
    if 1 < count < FEW:
        yield f"{count} tasks: intervals that resample so few are too narrow."
    if count == 1:
        yield "One task: intervals and tests hold given this task."
    if told["missing"]:
        yield (
            f"Asked for and not done: {len(told['missing'])} of {len(asked.figures)} figures "
            f"({_shortened(told['missing'])})."
        )
    left = [name for name in TASKS if name not in about["tasks"]]
    if left:
        yield f"Not in the table: {', '.join(left)}."


def _tries(recipe: Recipe) -> bool:
    """Whether learning rates are tried for designs of several modules."""
    protocol = recipe.protocol
    return bool(protocol and (protocol.rates_from or protocol.rates.get(MIXED)))


def _shortened(names: Sequence[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
