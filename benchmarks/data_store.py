"""The store of decoded images on a large folder: seconds cold and warm, and peak memory.

    python benchmarks/data_store.py [--images 20000] [--size 224]

Draws JPEG files of 320×240 into a temporary directory, decodes them to --size in a process of its
own, starts a second process on the same folder, and writes results/data_store.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESULT = Path(__file__).parent / "results" / "data_store.json"
READ = """
import json, sys, threading, time
from pathlib import Path
import torch
from noahnas.backbone import Preprocess
from noahnas.data import LoadOptions, load_data, merge

def anonymous():  # kB that are not pages of a file, which the system takes back at will
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def watch():
    while True:
        seen.append(anonymous())
        time.sleep(0.01)

size, before, seen = int(sys.argv[2]), anonymous(), []
threading.Thread(target=watch, daemon=True).start()
began = time.perf_counter()
data = load_data(sys.argv[1], LoadOptions((size, size)))
seconds = time.perf_counter() - began
peak = max(seen) - before
split = merge(data.train, data.val)
order = torch.randperm(len(split))[:6400]
half = Preprocess((size, size), (0.5,) * 3, (0.5,) * 3)
began = time.perf_counter()
for _ in split.batches(64, half, torch.device("cpu"), order):
    pass
batches = time.perf_counter() - began
print(json.dumps({"seconds": round(seconds, 2), "decoded_now": data.notes.decoded,
    "images_per_second_in_random_batches": round(len(order) / batches),
    "peak_anonymous_megabytes": round(peak / 1e3), "digest": data.digest}))
"""


def draw(root: Path, count: int) -> None:
    """JPEG files of noise over a gradient, in ten classes."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 320, dtype=np.float32)[None, :, None]
    for i in range(count):
        folder = root / str(i % 10)
        folder.mkdir(parents=True, exist_ok=True)
        coarse = rng.uniform(0, 120, (8, 10, 3)).astype(np.float32).repeat(30, 0).repeat(32, 1)
        pixels = np.roll(ramp, 32 * (i % 10), axis=1) * 0.6 + coarse
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpg", quality=85)


def main() -> None:
    """Draw, decode, start again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "images", args.images)
        env = os.environ | {"NOAHNAS_CACHE": f"{folder}/cache"}
        found: dict[str, Any] = {
            "images": args.images,
            "size": args.size,
            "cores": os.cpu_count(),
            "decoded_megabytes": round(args.images * 3 * args.size**2 / 1e6),
        }
        for start in ("cold", "warm"):
            done = subprocess.run(
                [sys.executable, "-c", READ, f"{folder}/images", str(args.size)],
                stdout=subprocess.PIPE, text=True, check=True, env=env,
            )  # fmt: skip
            found[start] = json.loads(done.stdout)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
