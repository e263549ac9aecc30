"""What a table's runs cost: passes before they are made, and seconds from a short measurement."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from noahnas.backbone import load_backbone
from noahnas.data import Dataset, Split, Task
from noahnas.data.micro_vtab import TASKS
from noahnas.device import choose_device, choose_precision
from noahnas.diagnose import ARCHS
from noahnas.epochs import name_of
from noahnas.evaluate import evaluate
from noahnas.inputs import Inputs
from noahnas.loaded import default_threads
from noahnas.policy import SANDWICH, only
from noahnas.protocols.cells import Cell
from noahnas.protocols.designs import rated
from noahnas.recipe import MIXED, Stage
from noahnas.space import Arch
from noahnas.train import PASSES_PER_TRAINING_IMAGE, build, train

BATCHES = 3  # of a training that is timed, after one that is not
EVALUATED = 256  # images
EVALUATION = "evaluation"


def passes(cell: Cell) -> dict[str, int]:
    """What a cell's stages cost, at most, if none is done yet; in their order."""
    inputs = cell.inputs
    recipe = inputs.recipe
    train_images, val, _ = TASKS[cell.task].counts
    found: dict[str, int] = {}
    if inputs.space:
        if not cell.supernet_of:
            archs = 2 + SANDWICH if "sandwich" in recipe.policy else 1
            epoch = PASSES_PER_TRAINING_IMAGE * train_images * archs
            found["supernet"] = epoch * recipe.supernet.epochs
            found["spread"] = ARCHS * val
            return found
        found["search"] = recipe.trials * val
    both = recipe.retrain_on == "train+val" and not inputs.held_out
    images = train_images + (val if both else 0)
    tried = () if inputs.held_out else recipe.retrain_epochs
    for epochs in tried:
        found[name_of(epochs)] = PASSES_PER_TRAINING_IMAGE * train_images * epochs + val
    epochs = max(tried, default=recipe.retrain.epochs)
    return found | {"retrain": PASSES_PER_TRAINING_IMAGE * images * epochs}


def seconds(cell: Cell, speeds: Mapping[str, float]) -> float:
    """An estimate of a cell's time, from `measured` seconds a pass."""
    return sum(count * speeds[_kind(cell, stage)] for stage, count in passes(cell).items())


def measured(cells: Sequence[Cell], middle: Arch) -> dict[str, float]:
    """Seconds a pass of each kind of training, and of evaluating; a few seconds' work.

    Args:
        cells: of one table; one of each kind is measured, on random pictures.
        middle: an architecture of several modules, which stands for all of them.
    """
    found = {}
    for cell in cells:
        for stage in passes(cell):
            kind = _kind(cell, stage)
            if kind in found or kind == EVALUATION:
                continue
            recipe = cell.inputs.recipe
            how = recipe.supernet if stage == "supernet" else recipe.retrain
            arch = middle if kind.startswith(MIXED) else cell.inputs.arch or middle
            found[kind], found[EVALUATION] = _timed(arch, cell.inputs, how)
    return found


def _kind(cell: Cell, stage: str) -> str:
    """What a stage's seconds a pass depend on, beside the backbone."""
    if stage in ("spread", "search"):
        return EVALUATION
    recipe = cell.inputs.recipe
    like = MIXED if stage == "supernet" else rated(cell.row)
    batch = (recipe.supernet if stage == "supernet" else recipe.retrain).batch_size
    return f"{like} in batches of {batch}"


def _timed(arch: Arch, inputs: Inputs, how: Stage) -> tuple[float, float]:
    """Seconds a pass of training and of evaluating."""
    stage = how.of_epochs(1)
    backbone = load_backbone(inputs.backbone, stage.drop_path)
    torch.set_num_threads(inputs.threads or default_threads(backbone))
    device = choose_device(inputs.device)
    size = (BATCHES * stage.batch_size, 3, *backbone.preprocess.size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)  # (n, 3, H, W)
    labels = torch.arange(len(images)) % 10  # (n)
    both = Split(images, labels)
    part = Split(images[: math.ceil(len(images) / BATCHES)], labels[: len(images) // BATCHES])
    data = Dataset("speed", tuple("0123456789"), both, both, both)
    precision = choose_precision(inputs.precision, device)
    task = Task(data, backbone.preprocess, device, precision)
    net = build(backbone, arch, 10, stage, 0, full=inputs.full)
    with tempfile.TemporaryDirectory() as folder:
        for name, split in (("warm", part), ("timed", both)):
            log = train(
                net, task, split, stage,
                name=name, plan=only(arch), seed=0, checkpoint=Path(folder) / name,
            )  # fmt: skip
    began = time.perf_counter()
    result = evaluate(net, arch, task, "val", images=EVALUATED)
    return log.seconds / log.passes, (time.perf_counter() - began) / result.passes
