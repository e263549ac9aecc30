"""Distil the small student from the cached tokens, without labels; a killed run can go on.

    python benchmarks/pretrain/distill.py train  [--cache DIR] [--run NAME] [--steps N]
    python benchmarks/pretrain/distill.py export [--cache DIR] [--run NAME] [--out FILE]

The student (12 blocks, width 128, 56×56, patch 14) has the teacher's 16 patches, so its tokens
answer the teacher's one to one. Linear projectors, thrown away at the end, read the student's
tokens after its last and after its `MIDDLE`th block and predict the teacher's there, standardised
per dimension; the class token also predicts the teacher's mean patch. The loss is smooth-L1. What
is exported is the moving average of the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from fetch import DEFAULT_CACHE
from student import ASSET, KWARGS, student, write_asset
from teacher import MEAN, MIDDLE, STD, WIDTH, Views
from torch import Tensor, nn
from torch.nn import functional as F

SAVE_SECONDS = 240


@dataclass(frozen=True)
class Plan:
    """Hyper-parameters of one run."""

    views: int = 307_200
    steps: int = 22_000
    batch: int = 128
    lr: float = 1e-3
    floor: float = 1e-5  # the learning rate at the last step
    warmup: int = 500  # steps
    decay: float = 0.02  # weight decay, matrices only
    average: float = 0.9995  # of the weights, per step
    middle: float = 0.5  # weight of the middle block's loss
    first: float = 1.0  # weight of the class token's loss; the patches have 1
    whiten: float = 0.5  # of the class targets: 0 per dimension, 1 all principal directions alike
    seed: int = 0


class Distiller(nn.Module):
    """Student, projectors and loss in one graph.

    Args:
        scale: mean and deviation of the teacher's tokens, from `statistics`.
        plan: the weights of the losses.
    """

    mean: Tensor  # of the colours, as all below: buffers, not parameters
    sd: Tensor
    first_mean: Tensor
    first_map: Tensor
    patch_mean: Tensor
    patch_sd: Tensor
    pool_mean: Tensor
    pool_sd: Tensor
    middle_mean: Tensor
    middle_sd: Tensor

    def __init__(self, scale: dict[str, Tensor], plan: Plan) -> None:
        super().__init__()
        self.student = student()
        width = KWARGS["embed_dim"]
        self.middle = nn.Linear(width, WIDTH)
        self.patch = nn.Linear(width, WIDTH)
        self.first = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * WIDTH))
        self.weights = (plan.first, plan.middle)
        for name, value in (scale | {"mean": torch.tensor(MEAN), "sd": torch.tensor(STD)}).items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, last: Tensor, middle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of class token, patches and middle tokens, to be summed.

        Args:
            x: pictures (B, 56, 56, 3), bytes.
            last: the teacher's last tokens (B, 17, 384).
            middle: the teacher's tokens of block `MIDDLE` (B, 17, 384).
        """
        vit, last, middle = self.student, last.float(), middle.float()
        x = (x / 255 - self.mean) / self.sd  # (B, 56, 56, 3)
        x = x.permute(0, 3, 1, 2)  # (B, 3, 56, 56)
        mean_patch = (last[:, 1:].mean(1) - self.pool_mean) / self.pool_sd  # (B, 384)
        first = (last[:, 0] - self.first_mean) @ self.first_map  # (B, 384)
        last = (last[:, 1:] - self.patch_mean) / self.patch_sd  # (B, 16, 384)
        middle = (middle - self.middle_mean) / self.middle_sd  # (B, 17, 384)
        h = vit._pos_embed(vit.patch_embed(x))  # (B, 17, 128)
        for i, block in enumerate(vit.blocks):
            h = block(h)  # (B, 17, 128)
            if i == MIDDLE:
                half = self.middle(h)  # (B, 17, 384)
        h = vit.norm(h)  # (B, 17, 128)
        goal = torch.cat([first, mean_patch], 1)  # (B, 768)
        return (
            self.weights[0] * F.smooth_l1_loss(self.first(h[:, 0]).float(), goal),
            F.smooth_l1_loss(self.patch(h[:, 1:]).float(), last),
            self.weights[1] * F.smooth_l1_loss(half.float(), middle),
        )


def statistics(data: Views, whiten: float, rows: int = 20_000) -> dict[str, Tensor]:
    """Mean and deviation of the teacher's tokens over the first `rows` views.

    Returns:
        `first_mean` (384,) and `first_map` (384, 384), which takes centred class tokens to the
        target: divided by each dimension's deviation, and then every principal direction's
        deviation s by s^`whiten`; `patch_*`, `pool_*` (of the mean patch) and `middle_*` of shape
        (384,) or (17, 384).
    """
    last = torch.from_numpy(data.last[:rows].astype(np.float32))  # (rows, 17, 384)
    middle = torch.from_numpy(data.middle[:rows].astype(np.float32))  # (rows, 17, 384)
    first, patches, pool = last[:, 0], last[:, 1:].flatten(0, 1), last[:, 1:].mean(1)
    z = (first - first.mean(0)) / first.std(0)  # (rows, 384)
    variance, axes = torch.linalg.eigh(z.T @ z / rows)  # (384,), (384, 384)
    shrunk = axes * variance.clamp(min=1e-3) ** (-whiten / 2)  # (384, 384)
    shrunk = shrunk / ((z @ shrunk).square().mean().sqrt())  # unit variance over all directions
    return {
        "first_mean": first.mean(0),
        "first_map": shrunk / first.std(0)[:, None] if whiten else torch.diag(1 / first.std(0)),
        "patch_mean": patches.mean(0),
        "patch_sd": patches.std(0),
        "pool_mean": pool.mean(0),
        "pool_sd": pool.std(0),
        "middle_mean": middle.mean(0),
        "middle_sd": middle.std(0) + 1e-3,
    }


def rate(step: int, plan: Plan) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to `floor`."""
    if step < plan.warmup:
        return plan.lr * (step + 1) / plan.warmup
    done = min(1.0, (step - plan.warmup) / max(1, plan.steps - plan.warmup))
    return plan.floor + (plan.lr - plan.floor) * 0.5 * (1 + math.cos(math.pi * done))


def batches(plan: Plan, start: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each step's batch from step `start` on; every pass is a permutation of its own."""
    per_pass = plan.views // plan.batch
    step = start
    while True:
        order = np.random.default_rng([plan.seed, step // per_pass]).permutation(plan.views)
        for k in range(step % per_pass, per_pass):
            yield np.sort(order[k * plan.batch : (k + 1) * plan.batch])
            step += 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    partial.replace(path)


def train(cache: Path, name: str, plan: Plan) -> dict[str, Any]:
    """Train to the plan's last step, or go on from `runs/NAME/state.pt`; returns what was spent."""
    torch.manual_seed(plan.seed)
    folder = cache / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    data = Views.open(cache)
    if data.done < plan.views:
        raise ValueError(
            f"{data.done} views are cached and {plan.views} wanted; run teacher.py cache first"
        )
    net = Distiller(statistics(data, plan.whiten), plan)
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98), fused=True)
    average = {k: v.clone() for k, v in net.student.state_dict().items()}
    step, spent, best = 0, 0.0, folder / "state.pt"
    if best.exists():
        state = torch.load(best, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent = state["average"], state["step"], state["cpu_seconds"]
    live = net.student.state_dict()
    compiled = torch.compile(net, dynamic=False)
    began, saved, recent = time.process_time(), time.monotonic(), np.zeros(3)

    def keep() -> None:
        state = {
            "net": net.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average,
            "step": step,
            "cpu_seconds": spent + time.process_time() - began,
        }
        save(best, state)

    for rows in batches(plan, step):
        if step >= plan.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate(step, plan)
        batch = (torch.from_numpy(a[rows]) for a in (data.images, data.last, data.middle))
        with torch.autocast("cpu", torch.bfloat16):
            losses = compiled(*batch)
        sum(losses).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        decay = min(plan.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), list(live.values()), 1 - decay)
        step += 1
        recent = recent + [float(v.detach()) for v in losses]
        if step % 100 == 0:
            now = spent + time.process_time() - began
            line = {
                "step": step,
                "cpu_seconds": round(now),
                "losses": [round(float(v), 4) for v in recent / 100],
            }
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
            recent = np.zeros(3)
        if time.monotonic() - saved > SAVE_SECONDS:
            keep()
            saved = time.monotonic()
    keep()
    return {
        "plan": plan.__dict__,
        "cpu_seconds": round(spent + time.process_time() - began),
        "steps": step,
        "epochs": round(step * plan.batch / plan.views, 2),
        "passes": 3 * step * plan.batch,  # one training image counts 3
    }


def export(cache: Path, name: str, out: Path) -> dict[str, Any]:
    """Write the averaged student of run `name`; returns the file's size and hash, and the cost."""
    state = torch.load(cache / "runs" / name / "state.pt", weights_only=True)
    spent = {"steps": state["step"], "cpu_seconds": round(state["cpu_seconds"])}
    return write_asset(state["average"], out) | spent


def main() -> None:
    """Parse and run; every field of `Plan` is an option."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["train", "export"])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--run", default="main")
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--json", type=Path, help="write what was spent or exported here")
    for field, value in Plan().__dict__.items():
        parser.add_argument(f"--{field}", type=type(value), default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "train":
        plan = Plan(**{field: getattr(args, field) for field in Plan().__dict__})
        result = train(args.cache, args.run, plan)
    else:
        result = export(args.cache, args.run, args.out)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
