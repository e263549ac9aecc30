"""Images a second and memory on a GPU, beside the frozen backbone.

Compiling takes a minute a case, so each model and mode has a process of its own. All prepare at
once; then they are timed one after the other, while the others wait.

`torch.compile` cannot follow the hooks by which modules act. So a case is traced first, for one
architecture (`make_fx`), and what was traced is compiled: that pays where one architecture runs
often, not where each is seen once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import CLASSES, Work, archs_of, model_of
from precision import precision
from torch import Tensor
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from training import plain_step

from noahnas import Arch, Space, Supernet
from noahnas.backbone import describe
from noahnas.data import LoadOptions, Task, load_data
from noahnas.device import autocast, cast
from noahnas.evaluate import evaluate_batch
from noahnas.policy import Lesson
from noahnas.train import Batch, _step

NAMES = ("vit_small_patch16_224", "vit_base_patch16_224")
MODES = ("fp32", "bf16", "bf16, compiled")
EVALUATED, TRAINED = 256, 64  # images at a time
REPEATS = 20
PATIENCE = 150  # seconds for a compilation
Case = tuple[str, int, Callable[[], Work]]  # what, images, and what makes the work


def gpu(work: Path) -> dict[str, Any]:
    """Images a second and memory of evaluating and training, beside the frozen backbone."""
    if not torch.cuda.is_available():
        print("gpu: there is none here; not run")
        return {"run": False, "why": "no GPU on this machine"}
    found: dict[str, Any] = {
        "run": True,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "images": {"eval": EVALUATED, "train": TRAINED},
        "repeats": REPEATS,
    }
    context = get_context("spawn")
    workers = []
    for name in NAMES:
        for mode in MODES:
            for told in ("eval", "train"):
                ours, theirs = context.Pipe()
                worker = context.Process(target=_worker, args=(theirs, name, mode, told))
                worker.start()
                theirs.close()  # so that its end is told
                workers.append((f"{name} {mode}", worker, ours))
    until = time.monotonic() + PATIENCE
    ready = [ours.poll(max(0, until - time.monotonic())) for _, _, ours in workers]
    for (told, worker, ours), there in zip(workers, ready, strict=True):
        if not there:
            found[f"{told} …"] = {"failed": f"not ready after {PATIENCE} s"}
            print(f"gpu {told}: not ready", flush=True)
            worker.terminate()
            worker.join()
            continue
        try:
            ours.send("go")
            cases = ours.recv() | ours.recv()
        except (EOFError, OSError):
            cases = {"…": {"failed": "its process has ended"}}
        for case, measured in cases.items():
            found[f"{told} {case}"] = measured
            print(f"gpu {told} {case}: {measured}", flush=True)
        worker.join()
    return found | _fifty() | {"precision": precision(work, torch.device("cuda"))}


def _worker(parent: Connection, name: str, mode: str, told: str) -> None:
    """Prepare the cases of a model and mode, wait, and time them."""
    torch.set_num_threads(1)
    device = torch.device("cuda")
    precision, _, how = mode.partition(", ")
    with ExitStack() as stack:
        made: list[tuple[str, int, Work, float]] = []
        failed: dict[str, Any] = {}
        cases = _evaluating if told == "eval" else _training
        for case, images, make in cases(stack, name, device, precision, bool(how)):
            began = time.perf_counter()
            try:
                work = make()
                for _ in range(3):
                    work()
                torch.cuda.synchronize()
            except Exception as e:  # out of memory, or what the compiler does not know
                failed[case] = {"failed": f"{type(e).__name__}: {e}".splitlines()[0]}
            else:
                made.append((case, images, work, time.perf_counter() - began))
        parent.send(failed)
        parent.poll(None)
        found = {
            case: _timed(images, work) | ({"compile_seconds": seconds} if how else {})
            for case, images, work, seconds in made
        }
        parent.send(found)


def _timed(images: int, work: Work) -> dict[str, Any]:
    """The median of single runs, and the most memory that was allocated."""
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    middle = statistics.median(seconds)
    return {
        "images_a_second": images / middle,
        "ms": 1000 * middle,
        "ms_quartiles": [1000 * q for q in np.quantile(seconds, [0.25, 0.75]).tolist()],
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


def _evaluating(
    stack: ExitStack, name: str, device: torch.device, precision: str, compiled: bool
) -> Iterator[Case]:
    """Forwards of the plain backbone and of architectures."""
    x = torch.randn(EVALUATED, 3, 224, 224, device=device)
    stack.enter_context(torch.no_grad())
    plain = model_of(name).to(device).eval()
    space = Space.load("noah-vtab").bind(plain)
    net = Supernet(model_of(name), space, CLASSES).to(device).eval()
    for model in (plain, net.backbone):
        stack.enter_context(cast(model, precision))
    stack.enter_context(autocast(device, precision))

    def made(forward: Callable[[Tensor], Tensor]) -> Work:
        ready = torch.compile(make_fx(forward)(x)) if compiled else forward
        return lambda: ready(x)

    yield "eval plain", EVALUATED, lambda: made(plain)
    for told, arch in archs_of(space).items():
        if told == "median" or not compiled:
            yield f"eval {told}", EVALUATED, lambda arch=arch: made(lambda x: net(x, arch))


def _training(
    _stack: ExitStack, name: str, device: torch.device, precision: str, compiled: bool
) -> Iterator[Case]:
    """Steps of the plain backbone with LoRA, and of architectures."""
    x = torch.randn(TRAINED, 3, 224, 224, device=device)
    y = torch.arange(TRAINED, device=device) % CLASSES
    yield "train plain", TRAINED, lambda: plain_step(name, x, y, precision, compiled=compiled)
    model = model_of(name)
    space = Space.load("noah-vtab").bind(model)
    net = Supernet(model, space, CLASSES).to(device).train()
    optimizer = torch.optim.AdamW(net.trainable().values(), lr=1e-3, fused=True)
    for told, arch in archs_of(space).items():
        if compiled and told == "median":
            yield f"train {told}", TRAINED, lambda arch=arch: _compiled(net, arch, x, y, precision)
        elif not compiled:
            batch = Batch(x, y, [Lesson(arch)], precision=precision)
            yield (
                f"train {told}",
                TRAINED,
                lambda batch=batch: lambda: _step(net, optimizer, batch),
            )


def _compiled(net: Supernet, arch: Arch, x: Tensor, y: Tensor, precision: str) -> Work:
    """A training step on one architecture, traced and compiled."""
    weights = net.trainable()
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-3, fused=True)

    def loss_of(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        with autocast(x.device, precision):
            logits = functional_call(net, weights, (x, arch))  # (B, classes)
            return F.cross_entropy(logits, y)  # ()

    compiled = torch.compile(make_fx(loss_of)(weights, x, y))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        compiled(weights, x, y).backward()
        optimizer.step()

    return step


def _fifty() -> dict[str, Any]:
    """Fifty architectures on real pictures, together and one by one, in bf16."""
    device = torch.device("cuda")
    model = model_of("vit_small_patch16_224")
    preprocess = describe(model, "vit_small").preprocess
    task = Task(load_data("count", LoadOptions(preprocess.size)), preprocess, device, "bf16")
    space = Space.load("noah-vtab").bind(model)
    net = Supernet(model, space, CLASSES).to(device)
    archs = space.sample(np.random.default_rng(0), 50, prior="paper")
    evaluate_batch(net, archs[:2], task)  # to warm up
    found = {}
    for told, parts in (("together", [archs]), ("one by one", [[arch] for arch in archs])):
        began = time.perf_counter()
        for part in parts:
            evaluate_batch(net, part, task)
        found[f"50 archs {told}"] = {"seconds": time.perf_counter() - began}
        print(f"gpu 50 archs {told}: {found[f'50 archs {told}']}", flush=True)
    return found
