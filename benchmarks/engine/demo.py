"""The demo's supernet: what searches are measured on."""

from __future__ import annotations

from pathlib import Path

import torch

from noahnas import Space, Supernet
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Task, load_data
from noahnas.export import load_trained, save_trained
from noahnas.files import digest
from noahnas.policy import policy
from noahnas.recipe import Recipe
from noahnas.train import build, train

CPU = torch.device("cpu")
RECIPE = Path(__file__).parents[1] / "recipes" / "short.yaml"


def supernet_of(work: Path, device: torch.device = CPU) -> tuple[Supernet, Space, Task]:
    """The demo's supernet on a device, trained on `count`; kept in `work`, by what decides it."""
    recipe = Recipe.load(str(RECIPE))
    backbone = load_backbone("vit-nano")
    data = load_data("count", LoadOptions(backbone.preprocess.size))
    space = Space.load("demo").bind(backbone.model, classes=len(data.classes))
    net = build(backbone, space, len(data.classes), recipe.supernet, 0)
    task = Task(data, backbone.preprocess, device)
    plan = policy(recipe.policy, space)
    about = f"{recipe.supernet} {plan.name} {data.digest} {backbone.digest}"
    path = work / f"supernet-{digest(about.encode())[:16]}.safetensors"
    if path.is_file():
        load_trained(path, net)
    else:
        train(
            net,
            task,
            data.train,
            recipe.supernet,
            name="supernet",
            plan=plan,
            seed=0,
            checkpoint=path.with_suffix(".ckpt"),
        )
        save_trained(path, net, {})
    return net.to(device), space, task
