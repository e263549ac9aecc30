"""Linear probe of the shipped ViT on every task of micro-VTAB: is there room above it?

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/probe.py [--out benchmarks/results/micro_vtab_probe.json]

Penalty chosen on val, fitted on train and val, tested once; convex, so there is nothing to seed.
Beside it the same probe on random weights of the same shape (seed 0). Digits are also tested by
halves: the shipped ViT saw pictures of 0–4 in its distillation, without labels, and none of 5–9;
random weights saw neither.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noahnas.backbone import Backbone, load_backbone
from noahnas.data import Dataset, LoadOptions, Split, Task, load_data
from noahnas.data.micro_vtab import TASKS
from noahnas.probe import Probe, linear_probe

OUT = Path(__file__).parents[1] / "results" / "micro_vtab_probe.json"
BACKBONE = "vit-nano"


def probed(backbone: Backbone, data: Dataset) -> Probe:
    """The probe of one task, on one thread of a CPU."""
    return linear_probe(backbone, Task(data, backbone.preprocess, torch.device("cpu")))


def randomised(backbone: Backbone) -> Backbone:
    """The same model as timm initialises it."""
    torch.manual_seed(0)
    model: Any = copy.deepcopy(backbone.model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.LayerNorm):
            module.reset_parameters()
    model.init_weights()
    return replace(backbone, model=model)


def among(data: Dataset, labels: range) -> Dataset:
    """The same task with only the test images that have one of `labels`."""
    keep = (data.test.labels >= labels.start) & (data.test.labels < labels.stop)
    return replace(data, test=Split(data.test.images[keep], data.test.labels[keep]))


def main() -> None:
    """Probe the ten tasks, print a table and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    backbone = load_backbone(BACKBONE)
    random = randomised(backbone)
    rows: list[dict[str, Any]] = []
    for name, task in TASKS.items():
        data = load_data(f"micro-vtab:{name}", LoadOptions(backbone.preprocess.size))
        probe, classes = probed(backbone, data), len(data.classes)
        counts = data.test.labels.bincount(minlength=classes)
        row = {
            "task": name,
            "group": task.group,
            "classes": classes,
            "images": [len(data.train), len(data.val), len(data.test)],
            "accuracy": probe.result.accuracy,
            "balanced_accuracy": probe.result.balanced_accuracy,
            "accuracy_of_random_weights": probed(random, data).result.accuracy,
            "chance": 1 / classes,
            "largest_class": counts.max().item() / len(data.test),
            "penalty": probe.penalty,
            "digest": data.digest,
            "seconds": round(probe.seconds, 1),
        }
        if name == "digits":
            for half, labels in (("0_to_4", range(5)), ("5_to_9", range(5, 10))):
                part = among(data, labels)
                row[f"accuracy_of_{half}"] = probed(backbone, part).result.accuracy
                row[f"accuracy_of_{half}_random_weights"] = probed(random, part).result.accuracy
        rows.append(row)
        print(
            f"{name:<11} {task.group:<12} {classes:>2} classes  {probe.result.accuracy:6.1%}  "
            f"random weights {row['accuracy_of_random_weights']:6.1%}  "
            f"largest class {row['largest_class']:5.1%}  {data.digest}",
            flush=True,
        )
    found = {
        "backbone": BACKBONE,
        "split": "test",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tasks": rows,
    }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
