"""What the features are worth: linear probe and short tuning of student, teacher, random weights.

    python benchmarks/pretrain/probe.py linear --out FILE.json [--backbones student teacher]
    python benchmarks/pretrain/probe.py tune --out FILE.json [--methods lora] [--tasks mnist]
    python benchmarks/pretrain/probe.py table FILE.json ...

Of each task 1000 images train (digits: 300) and up to 2000 others test; a seed draws both, and the
tuned parts. The probe is multinomial logistic regression on the standardised class token; its
penalty is chosen on the last fifth of the training images. Tuning is AdamW at a fixed recipe, last
epoch, no selection. Accuracies are shares of test images.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from fetch import DEFAULT_CACHE
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from student import ASSET, student, unfused
from tasks import TASKS, Bytes, Split
from teacher import load_teacher, to_input
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F


def backbone(name: str, cache: Path, asset: Path, seed: int) -> VisionTransformer:
    """A frozen backbone in evaluation mode.

    Args:
        name: "student", "teacher" or "random" (the student's architecture as timm initialises it).
        cache: where the teacher's file is.
        asset: the student's file.
        seed: of the random weights.
    """
    if name == "teacher":
        return unfused(load_teacher(cache))
    torch.manual_seed(seed)
    vit = student()
    if name == "student":
        vit.load_state_dict({k: v.float() for k, v in load_file(asset).items()}, strict=True)
    return vit.eval().requires_grad_(False)


@torch.inference_mode()
def features(model: VisionTransformer, images: Bytes) -> npt.NDArray[np.float32]:
    """Class tokens after the final norm: (n, 56, 56, 3) -> (n, D)."""
    parts = [
        model(to_input(images[i : i + 250])) for i in range(0, len(images), 250)
    ]  # (250, D) each
    return torch.cat(parts).numpy()


def linear(model: VisionTransformer, split: Split) -> dict[str, float]:
    """Accuracy of a linear probe."""
    x, test_x = features(model, split.x), features(model, split.test_x)  # (n, D), (m, D)
    mean, sd = x.mean(0), x.std(0) + 1e-6
    x, test_x = (x - mean) / sd, (test_x - mean) / sd
    fold = len(x) * 4 // 5
    scores = {}
    for c in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
        probe = LogisticRegression(C=c, max_iter=300).fit(x[:fold], split.y[:fold])
        scores[c] = probe.score(x[fold:], split.y[fold:])
    best = max(scores, key=lambda c: scores[c])
    probe = LogisticRegression(C=best, max_iter=500).fit(x, split.y)
    return {"accuracy": float(probe.score(test_x, split.test_y)), "C": best}


class LoRA(nn.Module):
    """Rank-4 updates of queries and values beside a frozen joint projection."""

    def __init__(self, qkv: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.qkv, d = qkv, qkv.in_features
        self.down = nn.Parameter(torch.randn(d, 2 * rank) / math.sqrt(d))
        self.up = nn.Parameter(torch.zeros(2, rank, d))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, 3D)."""
        a, b = (x @ self.down).chunk(2, -1)  # (B, N, r), (B, N, r)
        frozen: Tensor = self.qkv(x)  # (B, N, 3D)
        q, k, v = frozen.chunk(3, -1)  # (B, N, D) each
        return torch.cat([q + a @ self.up[0], k, v + b @ self.up[1]], -1)  # (B, N, 3D)


class Adapter(nn.Module):
    """An MLP with a bottleneck of 8 beside it, fed with its output."""

    def __init__(self, mlp: nn.Module, width: int, hidden: int = 8) -> None:
        super().__init__()
        self.mlp, self.down, self.up = mlp, nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        m: Tensor = self.mlp(x)  # (B, N, D)
        delta: Tensor = self.up(F.gelu(self.down(m)))  # (B, N, h) -> (B, N, D)
        return m + delta  # (B, N, D)


def tune(
    model: VisionTransformer, split: Split, method: str, seed: int, epochs: int, lr: float
) -> dict[str, float]:
    """Accuracy after tuning LoRA or adapters and a head: batch 32, one-cycle rate, last epoch."""
    torch.manual_seed(seed)
    width = model.embed_dim
    for block in model.blocks:
        if method == "lora":
            qkv = block.get_submodule("attn.qkv")
            assert isinstance(qkv, nn.Linear)
            block.get_submodule("attn").qkv = LoRA(qkv)
        else:
            block.mlp = Adapter(block.get_submodule("mlp"), width)
    classes = int(split.y.max()) + 1
    tuned = nn.Sequential(
        model, nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, classes)
    )
    parts = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parts, lr=lr, weight_decay=1e-4)
    steps = epochs * (len(split.x) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng([seed, 1])
    for _ in range(epochs):
        order = rng.permutation(len(split.x))
        for k in range(len(order) // 32):
            rows = order[32 * k : 32 * (k + 1)]
            logits = tuned(to_input(split.x[rows]))  # (32, classes)
            loss: Any = F.cross_entropy(logits, torch.from_numpy(split.y[rows]))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
    with torch.inference_mode():
        right = [
            (
                tuned(to_input(split.test_x[i : i + 250])).argmax(1).numpy()
                == split.test_y[i : i + 250]
            )
            for i in range(0, len(split.test_x), 250)
        ]
    params = sum(p.numel() for p in parts) - (width + 1) * classes
    return {
        "accuracy": float(np.concatenate(right).mean()),
        "params": params,
        "epochs": epochs,
        "lr": lr,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean ± sd over seeds, in per cent, one line per backbone and method."""
    lines = []
    tasks = [t for t in TASKS if any(r["task"] == t for r in rows)]
    for kind in dict.fromkeys((r["backbone"], r["method"]) for r in rows):
        cells = []
        for task in tasks:
            v = [
                100 * r["accuracy"]
                for r in rows
                if (r["backbone"], r["method"], r["task"]) == (*kind, task)
            ]
            spread = f" ± {np.std(v, ddof=1):.1f}" if len(v) > 1 else ""
            cells.append(f"{np.mean(v):.1f}{spread}" if v else "")
        lines.append(f"| {kind[0]} | {kind[1]} | " + " | ".join(cells) + " |")
    head = "| backbone | method | " + " | ".join(tasks) + " |\n|" + " --- |" * (len(tasks) + 2)
    return "\n".join([head, *lines])


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Versions, and one measured row a line."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    versions = f'"torch": "{torch.__version__}", "timm": "{timm.__version__}"'
    out.write_text(f'{{{versions}, "rows": [\n{lines}\n]}}\n')


def main() -> None:
    """Parse, measure, print the table, write the JSON after every figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["linear", "tune", "table"])
    parser.add_argument("files", type=Path, nargs="*", help="of table: what linear and tune wrote")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--asset", type=Path, default=ASSET)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["student", "teacher", "random"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=["lora"], choices=["lora", "adapter"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-2)
    args = parser.parse_args()
    if args.what == "table":
        print(table([row for file in args.files for row in json.loads(file.read_text())["rows"]]))
        return
    if args.out is None:
        parser.error("linear and tune need --out")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    methods = ["linear"] if args.what == "linear" else args.methods
    for name in args.backbones:
        for task in args.tasks:
            for seed in range(args.seeds):
                split = TASKS[task](args.cache, seed)
                for method in methods:
                    start = time.process_time()
                    model = backbone(name, args.cache, args.asset, seed)
                    if method == "linear":
                        result = linear(model, split)
                    else:
                        result = tune(model, split, method, seed, args.epochs, args.lr)
                    row = {"backbone": name, "method": method, "task": task, "seed": seed, **result}
                    row |= {"train": len(split.y), "test": len(split.test_y)}
                    rows.append(row | {"cpu_seconds": round(time.process_time() - start, 1)})
            write(args.out, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
