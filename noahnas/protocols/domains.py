"""Domain generalisation: one winner, trained on ImageNet's shots, on several test sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noahnas.backbone import load_backbone
from noahnas.data import Dataset, LoadOptions, Task, load_data
from noahnas.data.domains import SOURCE, TARGETS, check_domains
from noahnas.device import autocast, choose_device, choose_precision
from noahnas.errors import RunError
from noahnas.evaluate import scored
from noahnas.export import Tuned, load
from noahnas.progress import Progress, Report
from noahnas.protocols import ours
from noahnas.protocols.cells import Cell, Results, Settings, cells
from noahnas.protocols.runs import After
from noahnas.protocols.table import Table, beside, published, source
from noahnas.rundir import RunDirectory

NAME = "domain-generalisation"
FILE = "targets.json"  # in a run's directory: what its winner scored on each target
ALL = " among all classes"  # after a target that holds some of them
BATCH = 256  # images


def plan(settings: Settings, root: Path, shots: int, targets: Sequence[str]) -> list[Cell]:
    """The runs; lists of train, val and every target are checked first.

    Raises:
        DataError: if a list is not there or has faults.
    """
    for target in (SOURCE, *targets):
        for seed in settings.seeds:
            check_domains(root, shots, seed, target)
    return list(cells(settings, SOURCE, lambda seed: _spec(root, shots, seed, SOURCE)))


def _spec(root: Path, shots: int, seed: int, target: str) -> str:
    return f"domains:{root},shots={shots},seed={seed},target={target}"


def scorer(root: Path, shots: int, targets: Sequence[str]) -> After:
    """What is done after each run: its winner is scored on the targets that FILE does not hold.

    A target's images may change after it was scored: its digest is compared, and where it differs
    the target is scored anew. Each target is loaded once a seed, not once a run.
    """
    loaded: dict[str, Dataset] = {}

    def score(cell: Cell, run: Path, report: Report) -> None:
        done = _read(run) if (run / FILE).exists() else {}
        missing = []
        for number, target in enumerate(targets, start=1):
            spec = _spec(root, shots, cell.seed, target)
            if spec not in loaded:
                fed = load_backbone(cell.inputs.backbone).preprocess
                options = LoadOptions(fed.size, 0, cell.inputs.on_error, report, fed.interpolation)
                loaded[spec] = load_data(spec, options)
            if not _holds(done.get(target), loaded[spec].digest):
                missing.append((target, loaded[spec]))
            report(Progress("targets compared", number, len(targets), target))
        if not missing:
            return
        device = choose_device(cell.inputs.device)
        precision = choose_precision(cell.inputs.precision, device)
        tuned = load(run).to(device)
        for number, (target, data) in enumerate(missing, start=1):
            about = {"digest": data.digest, "skipped": len(data.notes.skipped)}
            task = Task(data, tuned.preprocess, device, precision)
            done[target] = accuracies(tuned, task) | about
            RunDirectory(run).write_json(FILE, done)
            report(Progress("targets", number, len(missing), target))

    return score


def _read(run: Path) -> dict[str, Any]:
    """What FILE holds.

    Raises:
        RunError: if it is damaged.
    """
    try:
        return RunDirectory(run).read_json(FILE)
    except RunError as e:
        raise RunError(f"{e}; remove it, and the targets are scored anew") from e


def _holds(found: Any, digest: str) -> bool:
    """Whether a target's entry is whole, and of these images."""
    whole = isinstance(found, dict) and {"accuracy", "accuracy_all", "skipped"} <= set(found)
    return whole and bool(found.get("digest") == digest)


@torch.inference_mode()
def accuracies(tuned: Tuned, task: Task) -> dict[str, Any]:
    """Test accuracy among the classes that occur in test, and among all; how many occur."""
    found = []
    for x, _ in task.data.test.batches(BATCH, task.preprocess, task.device):
        with autocast(task.device, task.precision):
            found.append(tuned(x).float().cpu())  # (b, classes)
    logits, labels = torch.cat(found), task.data.test.labels  # (n, classes), (n)
    occur = labels.unique()  # (k), ascending
    return {
        "accuracy": _accuracy(logits[:, occur], torch.searchsorted(occur, labels)),
        "accuracy_all": _accuracy(logits, labels),
        "classes": len(occur),
        "of": len(task.data.classes),
        "images": len(labels),
    }


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return scored(logits, labels, params=0, split="test").accuracy


def table(
    settings: Settings,
    plan: Sequence[Cell],
    results: Results,
    out: Path,
    targets: Sequence[str],
) -> Table:
    """Our figures for the source and each target; a target with some classes has two lines."""
    partial = [target for target in targets if TARGETS[target].subset]

    def measured(cell: Cell) -> dict[str, float]:
        found = _read(out / cell.name)
        lines = {SOURCE: results[cell.name]["test"]["accuracy"]}
        for target in targets:
            among = found[target]
            lines[target] = among["accuracy" if target in partial else "accuracy_all"]
        return lines | {t + ALL: found[t]["accuracy_all"] for t in partial}

    groups = {
        "source": {SOURCE: TARGETS[SOURCE].title},
        "targets": {target: TARGETS[target].title for target in targets},
    }
    if partial:
        groups["targets" + ALL] = {t + ALL: TARGETS[t].title + ALL for t in partial}
    told = (
        "ImageNet-A and -R are scored among the classes that occur in their lists, as their "
        "authors do; NOAH's code scores them among all classes, as the last lines do."
    )
    columns = ours.columns(settings, plan, results, measured)
    return Table(
        f"{NAME}: {settings.protocol.table}",
        groups,
        beside(published(NAME), settings.rows, columns),
        "",
        (*ours.notes(settings, source(NAME)), *([told] if partial else [])),
    )
