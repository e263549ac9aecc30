"""Images a second and memory on a GPU, beside the frozen backbone."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from models import CLASSES, Work, archs_of, model_of
from training import plain_step

from noahnas import Arch, Space, Supernet
from noahnas.backbone import describe
from noahnas.data import LoadOptions, Task, load_data
from noahnas.evaluate import evaluate_batch
from noahnas.policy import Lesson
from noahnas.train import Batch, _step


def gpu() -> dict[str, Any]:
    """Images a second and memory of evaluating and training, beside the frozen backbone."""
    if not torch.cuda.is_available():
        print("gpu: there is none here; not run")
        return {"run": False, "why": "no GPU on this machine"}
    device = torch.device("cuda")
    found: dict[str, Any] = {"run": True, "device": torch.cuda.get_device_name()}
    for name in ("vit_small_patch16_224", "vit_base_patch16_224"):
        for mode in ("fp32", "bf16", "bf16, compiled"):
            for told, (images, work) in _cases(name, mode, device).items():
                fed = mode.partition(",")[0]
                try:
                    about = _on_gpu(images, work, fed, "train" in told)
                except RuntimeError as e:  # out of memory, or what the compiler does not know
                    about = {"failed": str(e).splitlines()[0]}
                found[f"{name} {mode} {told}"] = about
                print(f"gpu {name} {mode} {told}: {about}", flush=True)
    task = _random_task(device)
    net, archs_ = _fifty(device)
    for told, size in (("together", None), ("one by one", 1)):
        began = time.perf_counter()
        if size:
            [evaluate_batch(net, [a], task) for a in archs_]
        else:
            evaluate_batch(net, archs_, task)
        torch.cuda.synchronize()
        found[f"50 archs {told}"] = {"seconds": time.perf_counter() - began}
    return found


def _cases(name: str, mode: str, device: torch.device) -> dict[str, tuple[int, Work]]:
    """Images at a time and what is done with them, ours and the plain backbone's."""
    model = model_of(name).to(device)
    space = Space.load("noah-vtab").bind(model)
    net = Supernet(model, space, CLASSES).to(device).eval()
    optimizer = torch.optim.AdamW(net.trainable().values(), lr=1e-3)
    x = torch.randn(256, 3, 224, 224, device=device)
    y = torch.arange(64, device=device) % CLASSES
    compiled = "compiled" in mode
    forward: Any = torch.compile(model) if compiled else model
    ours: Any = torch.compile(net) if compiled else net
    plain = plain_step(name, x[:64], y)
    archs, fed = archs_of(space), mode.partition(",")[0]

    def step() -> None:
        _step(net.train(), optimizer, Batch(x[:64], y, [Lesson(archs["median"])], precision=fed))

    found: dict[str, tuple[int, Work]] = {"eval plain": (256, lambda: forward(x))}
    for told, arch in archs.items():
        found[f"eval {told}"] = (256, lambda arch=arch: ours(x, arch))
    return found | {"train plain": (64, plain), "train median": (64, step)}


def _on_gpu(images: int, work: Work, fed: str, train: bool) -> dict[str, Any]:
    torch.cuda.reset_peak_memory_stats()
    dtype = torch.bfloat16
    with torch.set_grad_enabled(train), torch.autocast("cuda", dtype, enabled=fed == "bf16"):
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            work()
        torch.cuda.synchronize()
    rate = 10 * images / (time.perf_counter() - began)
    return {"images_a_second": rate, "peak_bytes": torch.cuda.max_memory_allocated()}


def _fifty(device: torch.device) -> tuple[Supernet, list[Arch]]:
    model = model_of("vit_small_patch16_224")
    space = Space.load("noah-vtab").bind(model)
    net = Supernet(model, space, CLASSES).to(device)
    return net, space.sample(np.random.default_rng(0), 50, prior="paper")


def _random_task(device: torch.device) -> Task:
    preprocess = describe(model_of("vit_small_patch16_224"), "vit_small").preprocess
    return Task(load_data("count", LoadOptions(preprocess.size)), preprocess, device, "bf16")
