"""What the inputs of a run name, loaded: backbone and data, on a device, in a precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from noahnas.backbone import Backbone, load_backbone
from noahnas.data import LoadOptions, Task, load_data
from noahnas.device import choose_device, choose_precision
from noahnas.errors import RunError
from noahnas.inputs import Inputs
from noahnas.normalise import normalised
from noahnas.progress import Report
from noahnas.recipe import Search, Stage
from noahnas.rundir import RunDirectory
from noahnas.space import Space
from noahnas.strategy import make_strategy
from noahnas.supernet import Supernet
from noahnas.train import build

SMALL = 5_000_000  # weights of a backbone
MOST_THREADS = 4096  # of PyTorch


@dataclass(frozen=True)
class Loaded:
    """Inputs with the backbone and the task that they name."""

    inputs: Inputs
    backbone: Backbone
    task: Task

    def digests(self) -> dict[str, str]:
        """Of what may change on the disk between two calls."""
        return {"backbone": self.backbone.digest, "data": self.task.data.digest}

    def about(self, space: Space) -> dict[str, Any]:
        """What a supernet is trained for."""
        recipe = self.inputs.recipe
        fed = {"policy": recipe.policy, "normalise": recipe.supernet.normalise}
        return {"space": space.to_dict()} | fed | self.digests()

    def fed(self, stage: Stage | Search) -> Task:
        """The task as a stage normalises its images."""
        preprocess = normalised(self.task.preprocess, stage.normalise)
        return replace(self.task, preprocess=preprocess)

    def fresh(self, stage: Stage) -> Backbone:
        """The backbone once more, with the stage's drop-path; a network takes it for itself."""
        return load_backbone(self.inputs.backbone, stage.drop_path)

    def bound(self, space: Space) -> Space:
        """A space, bound to the backbone and the classes."""
        return space.bind(self.backbone.model, classes=len(self.task.data.classes))

    def supernet(self, space: Space) -> Supernet:
        """A supernet of a bound space on the device, its weights drawn from the run's seed."""
        stage, classes = self.inputs.recipe.supernet, len(self.task.data.classes)
        net = build(self.fresh(stage), space, classes, stage, self.inputs.seed)
        return net.to(self.task.device)


def load(inputs: Inputs, report: Report) -> Loaded:
    """Load backbone and data, and find what else is wrong with the inputs.

    Sets the number of PyTorch's threads.

    Raises:
        NoahnasError: of the kind of what is wrong.
    """
    device = choose_device(inputs.device)
    precision = choose_precision(inputs.precision, device)
    backbone = load_backbone(inputs.backbone)
    threads = inputs.threads or default_threads(backbone)
    if threads not in range(1, MOST_THREADS + 1):
        raise RunError(f"{threads} threads; from 1 to {MOST_THREADS} can be had")
    torch.set_num_threads(threads)
    if inputs.space:
        space = inputs.space.bind(backbone.model)
        if inputs.strategy:
            make_strategy(inputs.strategy, space, inputs.seed, inputs.options)
    if inputs.arch:
        build(backbone, inputs.arch, 2, inputs.recipe.retrain, inputs.seed)  # raises if unfit
    fed = backbone.preprocess
    options = LoadOptions(fed.size, inputs.split_seed, inputs.on_error, report, fed.interpolation)
    data = load_data(inputs.data, options)
    if inputs.space:
        space.bind(classes=len(data.classes)).check_budget()
    return Loaded(inputs, backbone, Task(data, backbone.preprocess, device, precision))


def reload(run: RunDirectory, report: Report, inputs: Inputs | None = None) -> Loaded:
    """What a run was begun with, loaded again; with other `inputs` of the same data and backbone.

    Raises:
        RunError: if its data, its backbone's weights or the device have changed.
    """
    about = run.about
    inputs = inputs or Inputs.from_dict(about["inputs"])
    then = {key: about[key] for key in ("threads", "precision")}  # they decide the last digits
    loaded = load(replace(inputs, **then), report)
    for what, digest in loaded.digests().items():
        if digest != about["digests"][what]:
            raise RunError(f"the {what} has changed since {run.path} was begun; start a new run")
    here = loaded.task.device.type
    if here != about["device"]:
        raise RunError(
            f"{run.path} was begun on {about['device']}, this is {here}; start a new run"
        )
    return loaded


def default_threads(backbone: Backbone) -> int:
    """One thread for a small backbone, whose operations are too short to share; else PyTorch's."""
    size = sum(p.numel() for p in backbone.model.parameters())
    return 1 if size < SMALL else torch.get_num_threads()
