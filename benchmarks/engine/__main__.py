"""The engine beside the plain backbone: ratios of evaluation, training and memory, and precision.

    python benchmarks/engine [--only SECTION …] [--pairs 30] [--out FILE.json]

Everything is one thread. A ratio is ours over the plain code's for the same images in the same
process; the two run in turns, A B B A, a pair at a time, and are timed by the processor, so that
other work on the machine meets both alike. The interval is a bootstrap of the median over pairs;
its upper 95 % bound is what a limit is held against. Sections that stand in the file already are
kept; `--only` measures the ones it names (again). The tables of docs/results.md are written anew.
Weights of ViT-S and ViT-B are random: they decide no times.

    eval:MODEL    evaluating an arch / timm's own forward of the backbone on the same batch
    train:MODEL   a training step on an arch / one of the plain backbone with LoRA of rank 8 on qkv
    attention     of one block, by hand / by PyTorch's kernels, forward and backward
    memory        peak memory of a ViT-B/16 step at batch 16, over what the process held before it
    prefix        blocks computed once for archs that begin alike, over a search on real scores
    precision     bf16 against fp32: speed, and whether they rank architectures alike
    gpu           images a second and memory on a GPU
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from attention import attention
from evaluation import evaluation
from gpu import gpu
from memory import memory
from models import MODELS
from page import publish
from precision import precision
from prefix import prefix
from training import training

from noahnas.files import json_text, write_atomic

OUT = Path(__file__).parents[1] / "results" / "engine.json"
SECTIONS = (*(f"{what}:{m}" for what in ("eval", "train") for m in MODELS),
            "attention", "memory", "prefix", "precision", "gpu")  # fmt: skip


def main() -> None:
    """Measure what is asked for, and keep the rest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=None)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "noahnas-engine")
    parser.add_argument("--ask", type=int, default=10, help="architectures of an ask, for prefix")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(exist_ok=True, parents=True)
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    sections = args.only or [s for s in SECTIONS if s not in found]
    if len(sections) > 1:  # each in a process of its own: what one does to memory is no other's
        given = ["--pairs", args.pairs, "--out", args.out, "--work", args.work, "--ask", args.ask]
        for section in sections:
            command = [sys.executable, Path(__file__).parent, "--only", section, *given]
            subprocess.run(list(map(str, command)), check=True)
        return
    for section in sections:
        what, _, name = section.partition(":")
        if what == "eval":
            found[section] = evaluation(name, args.pairs)
        elif what == "train":
            found[section] = training(name, args.pairs)
        elif what == "attention":
            found[section] = attention(args.pairs)
        elif what == "memory":
            found[section] = memory()
        elif what == "prefix":
            found[section] = prefix(args.work, args.ask)
        elif what == "precision":
            found[section] = precision(args.work)
        else:
            measured = gpu(args.work)
            if not measured["run"]:
                continue
            found[section] = measured
        found[section]["about"] = {
            "threads": 1,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "cpu": torch.backends.cpu.get_cpu_capability(),
        }
        write_atomic(args.out, (json_text(found, indent=1) + "\n").encode())
    if args.out == OUT:
        publish(found)


if __name__ == "__main__":
    main()
