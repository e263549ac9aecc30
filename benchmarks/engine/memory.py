"""Peak memory of a training step of ViT-B/16, over what the process held before it.

Each step is taken in a process of its own, which is this file run as a script.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from models import CLASSES
from ratios import show
from training import our_step, plain_step

from noahnas.memory import hold

MODEL, BATCH, LIMIT = "vit_base_patch16_224", 16, 1.10


def memory() -> dict[str, Any]:
    """The peak of each step's process less what it held before, over that of the plain one."""
    found: dict[str, Any] = {"images": BATCH, "model": MODEL}
    for what in ("plain", "median", "largest"):
        command = [sys.executable, __file__, what]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found[what] = json.loads(done.stdout)
    for what in ("median", "largest"):
        over = found[what]["bytes"] / found["plain"]["bytes"]
        found[what] |= {"ratio": over, "limit": LIMIT, "met": over <= LIMIT}
        show(f"memory {what}", found[what])
    return found


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
