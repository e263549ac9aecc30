"""Peak memory of a training step of ViT-B/16, over what the process held before it.

Each step is taken in a process of its own, which is this file run as a script, and several times:
what the allocator keeps differs a little from process to process.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import CLASSES
from ratios import show
from training import our_step, plain_step

from noahnas.memory import hold

MODEL, BATCH, LIMIT = "vit_base_patch16_224", 16, 1.10
REPEATS = 5  # processes of each case


def memory() -> dict[str, Any]:
    """The peak of each step's process less what it held before, over that of the plain one.

    Held against the limit is the greatest ratio: the most bytes that a step took over the fewest
    that the plain one did. The least is the other way round.
    """
    cases = ("plain", "median", "largest")
    taken: dict[str, list[int]] = {what: [] for what in cases}
    held: dict[str, list[int]] = {what: [] for what in cases}
    for _ in range(REPEATS):
        for what in cases:
            command = [sys.executable, __file__, what]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            told = json.loads(done.stdout)
            taken[what].append(told["bytes"])
            held[what].append(told["held"])
    found: dict[str, Any] = {"images": BATCH, "model": MODEL, "processes": REPEATS}
    for what in cases:
        found[what] = {"bytes": taken[what], "held": held[what]}
    for what in ("median", "largest"):
        found[what] |= ratio_of(taken[what], taken["plain"])
        show(f"memory {what}", found[what])
    return found


def ratio_of(ours: Sequence[int], plain: Sequence[int]) -> dict[str, Any]:
    """The ratio of medians, the greatest and the least, and whether the limit is met."""
    highest = max(ours) / min(plain)
    return {
        "ratio": statistics.median(ours) / statistics.median(plain),
        "lowest": min(ours) / max(plain),
        "highest": highest,
        "limit": LIMIT,
        "met": highest <= LIMIT,
    }


def one_step(what: str) -> None:
    """Take one step and print what it added to the peak of the process's memory."""
    torch.set_num_threads(1)
    hold()  # as `train` does
    x, y = torch.randn(BATCH, 3, 224, 224), torch.arange(BATCH) % CLASSES
    step = plain_step(MODEL, x, y) if what == "plain" else our_step(MODEL, what, x, y)
    held = _resident()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"bytes": peak - held, "held": held}))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    one_step(sys.argv[1])
