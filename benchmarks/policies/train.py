"""Do training policies differ in how well a supernet ranks architectures? The training for it.

    noahnas data fetch micro-vtab
    python benchmarks/policies/train.py [--tasks distance,count] [--out FOLDER]
    python benchmarks/policies/table.py [--out FOLDER]

For each task: 60 architectures of the space `demo`, which meet its budget, trained alone by two
seeds; then a supernet for each policy, learning rate and seed, which scores the same 60. All
supernets cost the same passes: a step of `sandwich` costs four, so it takes a quarter of the
epochs. Both learning rates are tried by seed 0; the one of higher mean val accuracy of the 60 on
that task is used for the other seeds. Each training has its own file, so the script goes on where
it was stopped, and two of it can share the work by tasks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Task, load_data
from noahnas.evaluate import evaluate
from noahnas.files import write_atomic
from noahnas.policy import only, policy
from noahnas.recipe import Stage
from noahnas.space import Arch, Space
from noahnas.train import build, train

OUT = Path(__file__).parent / "results"
BACKBONE, SPACE, PRECISION = "vit-nano", "demo", "bf16"
ARCHS, ALONE_SEEDS, SEEDS = 60, (0, 1), (0, 1, 2)
ALONE = Stage(epochs=9, lr=1.2e-2, batch_size=32, warmup_epochs=1)
EPOCHS, BATCH = 20, 64  # of supernets; an epoch of `sandwich` counts four
RATES = (4e-3, 1.2e-2)
POLICIES = (
    *("paper", "feasible", "fair", "mixed", "sandwich", "warm"),
    *("warm+mixed", "mixed+feasible", "warm+mixed+feasible"),
)
WATCHED = 12  # of the 60, scored after some epochs on the way
MARKS = 5  # times that they are


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", default="distance,count")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = given.out
    names = given.tasks.split(",")
    tasks = {name: task(name) for name in names}
    archs = drawn()
    for name in names:
        kept(out / name / "about.json", lambda name=name: about(tasks[name], archs))
    for seed in ALONE_SEEDS:
        for name in names:
            for number, arch in enumerate(archs):
                path = out / name / f"alone-{seed}-{number:02}.json"
                kept(path, lambda p=path, a=arch, s=seed, n=name: alone(a, tasks[n], s, p))
        if seed == 0:
            for word in POLICIES:
                for rate in RATES:
                    for name in names:
                        score(out, name, tasks[name], archs, word, rate, 0)
    for seed in SEEDS[1:]:
        for word in POLICIES:
            for name in names:
                score(out, name, tasks[name], archs, word, chosen(out / name, word), seed)


def task(name: str) -> Task:
    """A task of micro-VTAB for the shipped ViT, on the CPU."""
    backbone = load_backbone(BACKBONE)
    data = load_data(f"micro-vtab:{name}", LoadOptions(backbone.preprocess.size, 0))
    return Task(data, backbone.preprocess, torch.device("cpu"), PRECISION)


def drawn() -> list[Arch]:
    """The 60: draws of the paper prior that meet the budget, no two alike."""
    space = Space.load(SPACE).bind(load_backbone(BACKBONE).model)
    rng = np.random.default_rng([0, ARCHS])
    found = dict[str, Arch]()
    while len(found) < ARCHS:
        (arch,) = space.sample(rng, prior="paper")
        found.setdefault(arch.digest, arch)
    return list(found.values())


def about(on: Task, archs: list[Arch]) -> dict[str, Any]:
    """What everything in a task's folder belongs to."""
    return {
        "backbone": load_backbone(BACKBONE).digest,
        "space": Space.load(SPACE).to_dict(),
        "data": on.data.digest,
        "images": {name: len(on.data.split(name)) for name in ("train", "val", "test")},
        "precision": PRECISION,
        "alone": asdict(ALONE),
        "epochs": EPOCHS,
        "archs": [arch.to_dict() for arch in archs],
    }


def kept(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds, made when it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(work()) + "\n").encode())
        print(path, flush=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def alone(arch: Arch, on: Task, seed: int, path: Path) -> dict[str, Any]:
    """Scores of one architecture that was trained alone, on val and test."""
    net = build(load_backbone(BACKBONE), arch, len(on.data.classes), ALONE, seed)
    checkpoint = path.with_suffix(".ckpt")
    log = train(
        net, on, on.data.train, ALONE,
        name="alone", plan=only(arch), seed=seed, checkpoint=checkpoint,
    )  # fmt: skip
    scores = {split: asdict(evaluate(net, arch, on, split)) for split in ("val", "test")}
    checkpoint.unlink()
    return {"digest": arch.digest, "train loss": log.losses[-1], "seconds": log.seconds} | scores


def score(
    out: Path, name: str, on: Task, archs: list[Arch], word: str, rate: float, seed: int
) -> dict[str, Any]:
    """Scores of the 60 under a supernet, on val."""
    path = out / name / f"supernet-{word}-{rate:g}-{seed}.json"
    return kept(path, lambda: supernet(on, archs, word, rate, seed, path))


def supernet(
    on: Task, archs: list[Arch], word: str, rate: float, seed: int, path: Path
) -> dict[str, Any]:
    """Train a supernet; what its subnets score on the way (some) and at the end (all)."""
    epochs = EPOCHS // 4 if "sandwich" in word else EPOCHS
    stage = Stage(epochs=epochs, lr=rate, batch_size=BATCH, warmup_epochs=max(epochs // 12, 1))
    backbone = load_backbone(BACKBONE)
    space = Space.load(SPACE).bind(backbone.model)
    net = build(backbone, space, len(on.data.classes), stage, seed)

    def mark(epoch: int) -> float | None:
        if (epoch + 1) % (epochs // MARKS):
            return None
        return statistics.fmean(evaluate(net, arch, on).accuracy for arch in archs[:WATCHED])

    checkpoint = path.with_suffix(".ckpt")
    log = train(
        net, on, on.data.train, stage,
        name=word, plan=policy(word, space), seed=seed, checkpoint=checkpoint, mark=mark,
    )  # fmt: skip
    began = time.perf_counter()
    found = [evaluate(net, arch, on) for arch in archs]
    checkpoint.unlink()
    return {
        "policy": word, "rate": rate, "seed": seed, "epochs": epochs,
        "passes": log.passes, "seconds": log.seconds, "losses": log.losses, "marks": log.marks,
        "val": [result.accuracy for result in found], "loss": [result.loss for result in found],
        "scoring seconds": time.perf_counter() - began,
    }  # fmt: skip


def chosen(folder: Path, word: str) -> float:
    """The learning rate under which a policy's seed-0 supernet scored higher."""

    def mean(rate: float) -> float:
        path = folder / f"supernet-{word}-{rate:g}-0.json"
        return statistics.fmean(json.loads(path.read_text(encoding="utf-8"))["val"])

    return max(RATES, key=mean)


if __name__ == "__main__":
    main()
