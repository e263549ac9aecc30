"""The engine beside the plain backbone: ratios of evaluation, training and memory, and precision.

    python benchmarks/engine.py [--only SECTION …] [--pairs 30] [--out FILE.json]

Everything is one thread. A ratio is ours over the plain code's for the same images in the same
process; the two run in turns, A B B A, a pair at a time, and are timed by the processor, so that
other work on the machine meets both alike. The interval is a bootstrap of the median over pairs;
its upper 95 % bound is what a limit is held against. Sections that stand in the file already are
kept; `--only` measures the ones it names (again). Weights of ViT-S and ViT-B are random: they
decide no times.

    eval:MODEL    evaluating an arch / timm's own forward of the backbone on the same batch
    train:MODEL   a training step on an arch / one of the plain backbone with LoRA of rank 8 on qkv
    memory        peak memory of a ViT-B/16 step at batch 16, over what the process held before it
    prefix        blocks computed once for the architectures of an ask, over a search on real scores
    precision     bf16 against fp32: speed, and whether they rank architectures alike
    gpu           images a second and memory on a GPU
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas import Arch, Space, Supernet
from noahnas.backbone import describe, load_backbone
from noahnas.data import LoadOptions, Task, load_data
from noahnas.evaluate import Result, evaluate_batch
from noahnas.files import write_atomic
from noahnas.policy import Lesson, policy
from noahnas.prefixes import deep, tree
from noahnas.recipe import Recipe, Stage
from noahnas.search import search
from noahnas.strategy import Proposal, make_strategy
from noahnas.study import Study
from noahnas.train import _step, build, train

OUT = Path(__file__).parent / "results" / "engine.json"
MODELS = {"vit-nano": 120, "vit_small_patch16_224": 4, "vit_base_patch16_224": 4}  # images a batch
LIMITS = {"eval": {"largest": 1.09, "median": 1.05}, "train": {"largest": 1.08, "median": 1.02}}
SECTIONS = (*(f"{what}:{m}" for what in ("eval", "train") for m in MODELS),
            "memory", "prefix", "precision", "gpu")  # fmt: skip
CLASSES, RANK = 10, 8
CPU = torch.device("cpu")
Work = Callable[[], Any]


def model_of(name: str) -> Any:
    """The backbone, and its input's size."""
    if name == "vit-nano":
        return load_backbone(name).model
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0)


def size_of(model: Any) -> int:
    """Height and width of its images, in pixels."""
    return int(model.patch_embed.img_size[0])


def archs_of(space: Space) -> dict[str, Arch]:
    """The largest arch, and the one of median cost of 201 draws of the paper prior."""
    rng = np.random.default_rng(0)
    drawn = sorted((space.draw(rng) for _ in range(201)), key=space.flops)
    return {"largest": space.largest, "median": drawn[100]}


# --- ratios ----------------------------------------------------------------------------------


def pairs(ours: Work, plain: Work, count: int) -> list[tuple[float, float]]:
    """Processor seconds of both, in turns: A B B A."""

    def timed(work: Work) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    ours(), plain()  # type: ignore[func-returns-value]  # to warm up
    found = []
    for number in range(count):
        if number % 2:
            b, a = timed(plain), timed(ours)
        else:
            a, b = timed(ours), timed(plain)
        found.append((a, b))
    return found


def ratio(found: Sequence[tuple[float, float]], limit: float | None = None) -> dict[str, Any]:
    """The median of paired ratios with its bootstrap interval, and whether it meets the limit."""
    ratios = np.array([a / b for a, b in found])
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.95])
    about = {"ratio": float(np.median(ratios)), "low": float(low), "upper95": float(high),
             "pairs": len(ratios), "ms": 1000 * float(np.median([a for a, _ in found])),
             "plain_ms": 1000 * float(np.median([b for _, b in found]))}  # fmt: skip
    return about | ({} if limit is None else {"limit": limit, "met": bool(high <= limit)})


def evaluation(name: str, count: int) -> dict[str, Any]:
    """Evaluating archs against timm's own forward; beside it, what more tokens alone cost."""
    model = model_of(name)
    space = Space.load("noah-vtab").bind(model)
    net = Supernet(model, space, CLASSES).eval()
    x = torch.randn(MODELS[name], 3, size_of(model), size_of(model))
    found: dict[str, Any] = {"images": len(x), "tokens": net.shape.tokens, "dtype": "fp32"}
    with torch.inference_mode():
        for told, arch in archs_of(space).items():
            root = tree(net, [arch])
            work = pairs(lambda root=root: dict(deep(net, [x], root)), lambda: model(x), count)
            tokens = np.mean([net.shape.tokens + p for p in _prompts(arch)]) / net.shape.tokens
            found[told] = ratio(work, LIMITS["eval"][told]) | {"tokens_alone": float(tokens)}
            show(f"eval {name} {told}", found[told])
    return found


def _prompts(arch: Arch) -> list[int]:
    """Prompt tokens in each block; they flow on into blocks without any."""
    found, last = [], 0
    for p in arch.dims("vpt"):
        last = p or last
        found.append(last)
    return found


class PlainLoRA(nn.Module):
    """LoRA of one pair of matrices on a layer, as plainly as it can be written."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, 3D)."""
        out: Tensor = self.layer(x) + self.up(self.down(x))  # (B, N, 3D)
        return out


def plain_step(name: str, x: Tensor, y: Tensor) -> Work:
    """A training step of the frozen backbone with LoRA on every qkv, and its head."""
    model = model_of(name)
    model.requires_grad_(False)
    model.reset_classifier(CLASSES)
    for block in model.blocks:
        block.attn.qkv = PlainLoRA(block.attn.qkv)
    model.to(x.device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def our_step(name: str, told: str, x: Tensor, y: Tensor) -> Work:
    """A step of the training loop on an arch of noah-vtab."""
    model = model_of(name)
    space = Space.load("noah-vtab").bind(model)
    arch = archs_of(space)[told]
    net = Supernet(model, space, CLASSES).train()
    optimizer = torch.optim.AdamW(net.trainable().values(), lr=1e-3)
    return lambda: _step(net, optimizer, x, y, [Lesson(arch)], 0.0, "fp32")


def training(name: str, count: int) -> dict[str, Any]:
    """A training step against the plain one."""
    size = size_of(model_of(name))
    x, y = torch.randn(MODELS[name], 3, size, size), torch.arange(MODELS[name]) % CLASSES
    plain = plain_step(name, x, y)
    found: dict[str, Any] = {"images": len(x), "dtype": "fp32"}
    for told in ("median", "largest"):
        found[told] = ratio(pairs(our_step(name, told, x, y), plain, count), LIMITS["train"][told])
        show(f"train {name} {told}", found[told])
    return found


# --- memory ----------------------------------------------------------------------------------


def memory(batch: int = 16) -> dict[str, Any]:
    """Each step in a process of its own: the peak of its memory less what it held before."""
    found: dict[str, Any] = {"images": batch, "model": "vit_base_patch16_224"}
    for what in ("plain", "median", "largest"):
        command = [sys.executable, __file__, "--step", what, "--batch", str(batch)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found[what] = json.loads(done.stdout)
    for what in ("median", "largest"):
        over = found[what]["bytes"] / found["plain"]["bytes"]
        found[what] |= {"ratio": over, "limit": 1.10, "met": over <= 1.10}
        show(f"memory {what}", found[what])
    return found


def one_step(what: str, batch: int) -> None:
    """Take one step and print what it added to the peak of the process's memory."""
    x = torch.randn(batch, 3, 224, 224)
    y = torch.arange(batch) % CLASSES
    name = "vit_base_patch16_224"
    step = plain_step(name, x, y) if what == "plain" else our_step(name, what, x, y)
    held = _resident()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"bytes": peak - held, "held": held}))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# --- searches --------------------------------------------------------------------------------


def supernet_of(work: Path) -> tuple[Supernet, Space, Task]:
    """The demo's supernet, trained on `count`; kept in `work`."""
    recipe = Recipe.load("default")
    backbone = load_backbone("vit-nano")
    data = load_data("count", LoadOptions(backbone.preprocess.size))
    space = Space.load("demo").bind(backbone.model, classes=len(data.classes))
    net = build(backbone, space, len(data.classes), recipe.supernet, 0)
    task = Task(data, backbone.preprocess, CPU)
    path = work / "supernet.safetensors"
    if path.is_file():
        from noahnas.export import load_trained

        load_trained(path, net)
    else:
        stage: Stage = recipe.supernet
        train(net, task, data.train, stage, name="supernet", plan=policy(recipe.policy, space),
              seed=0, checkpoint=work / "supernet.ckpt")  # fmt: skip
        from noahnas.export import save_trained

        save_trained(path, net, {})
    return net, space, task


def prefix(work: Path, count: int, batch: int) -> dict[str, Any]:
    """An evolution of 15 generations on real scores: seconds per arch over the plain forward's."""
    net, space, task = supernet_of(work)
    images = len(task.data.val)
    asks: list[list[Arch]] = []
    shared: list[float] = []

    def score(proposals: Sequence[Proposal]) -> Any:
        archs = [p.arch for p in proposals]
        found = evaluate_batch(net, archs, task)
        asks.append(archs)
        shared.append(sum(r.computed for r in found) / sum(r.passes for r in found))
        return found

    strategy = make_strategy("evolution", space, 0)
    with tempfile.TemporaryDirectory() as place:
        study = Study.journal(Path(place) / "study", space)
        search(strategy, score, study, trials=750, batch=batch)
    later = shared[50 // batch :]  # generations 1 to 14
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"batch": batch, "space": "demo", "images": images}
    found["computed"] = {"evolution": float(np.mean(later)), "first": shared[0]}
    draws = [space.sample(rng, batch, prior="paper") for _ in range(10)]
    found["computed"]["random"] = float(
        np.mean([sum(tree(net, d).shares(net.blocks).values()) / batch for d in draws])
    )
    ((x, _),) = replace(task.data.val).batches(
        MODELS["vit-nano"], task.preprocess, CPU, torch.arange(MODELS["vit-nano"])
    )
    with torch.inference_mode():
        for told, groups in (("evolution", asks[50 // batch :]), ("random", draws)):
            work_of = []
            for number in rng.permutation(len(groups))[:count]:
                root = tree(net, groups[number])
                one = pairs(lambda root=root: dict(deep(net, [x], root)), lambda: net.backbone(x), 1)
                work_of.append((one[0][0] / len(root.archs), one[0][1]))
            found[told] = ratio(work_of, 0.85 if told == "evolution" else None)
            show(f"prefix {told}", found[told])
    return found


def _places(results: Sequence[Result]) -> list[int]:
    """Each one's place when they are sorted as a search sorts them."""
    order = sorted(range(len(results)), key=lambda i: results[i].rank)
    return [order.index(i) for i in range(len(results))]


def _tau(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Kendall's tau with a bootstrap interval over architectures."""
    x, y, rng = np.array(a), np.array(b), np.random.default_rng(0)
    drawn = rng.integers(0, len(x), (1000, len(x)))
    low, high = np.quantile([kendalltau(x[i], y[i]).statistic for i in drawn], [0.025, 0.975])
    return {"tau": float(kendalltau(x, y).statistic), "low": float(low), "high": float(high)}


def precision(work: Path, archs: int = 50) -> dict[str, Any]:
    """Whether bf16 is faster on this CPU and ranks architectures as fp32 does."""
    net, space, task = supernet_of(work)
    drawn = space.sample(np.random.default_rng(1), archs, prior="paper")
    reduced = replace(task, precision="bf16")
    results: dict[str, list[Result]] = {"fp32": [], "bf16": []}
    times = []
    for arch in drawn:
        seconds = {}
        for told, fed in (("fp32", task), ("bf16", reduced)):
            began = time.process_time()
            results[told].append(evaluate_batch(net, [arch], fed)[0])
            seconds[told] = time.process_time() - began
        times.append((seconds["bf16"], seconds["fp32"]))
    about = ratio(times)
    found: dict[str, Any] = {"archs": archs, "limit": 0.95, "bf16_over_fp32": about}
    found["tau_loss"] = _tau(*([r.loss for r in some] for some in results.values()))
    found["tau_rank"] = _tau(*(_places(some) for some in results.values()))
    found["tau_accuracy"] = _tau(*([r.accuracy for r in some] for some in results.values()))
    taus = [found[key]["tau"] for key in ("tau_loss", "tau_rank")]
    found["met"] = min(taus) >= 0.95 and about["upper95"] < 1
    gaps = [abs(a.loss - b.loss) for a, b in zip(*results.values(), strict=True)]
    found["largest_difference_of_losses"] = max(gaps)
    for key in ("tau_loss", "tau_rank", "tau_accuracy"):
        print(
            f"{key}: {found[key]['tau']:.3f} ({found[key]['low']:.3f} to {found[key]['high']:.3f})"
        )
    show("precision bf16/fp32", about)
    return found


# --- a GPU -----------------------------------------------------------------------------------


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
        _step(net.train(), optimizer, x[:64], y, [Lesson(archs["median"])], 0.0, fed)

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


# --- the table -------------------------------------------------------------------------------


def show(told: str, about: dict[str, Any]) -> None:
    """One line as soon as it is known."""
    high = about.get("upper95", about["ratio"])
    limit = (
        f"limit {about['limit']:.2f} {'met' if about['met'] else 'MISSED'}"
        if "limit" in about
        else ""
    )
    print(f"{told:<38} {about['ratio']:.3f}  upper {high:.3f}  {limit}", flush=True)


def main() -> None:
    """Measure what is asked for, and keep the rest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=None)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "noahnas-engine")
    parser.add_argument("--ask", type=int, default=50, help="architectures of an ask, for prefix")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=16, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.step:
        one_step(args.step, args.batch)
        return
    args.work.mkdir(exist_ok=True, parents=True)
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for section in args.only or [s for s in SECTIONS if s not in found]:
        what, _, name = section.partition(":")
        if what == "eval":
            found[section] = evaluation(name, args.pairs)
        elif what == "train":
            found[section] = training(name, args.pairs)
        elif what == "memory":
            found[section] = memory()
        elif what == "prefix":
            found[section] = prefix(args.work, args.pairs, args.ask)
        elif what == "precision":
            found[section] = precision(args.work)
        else:
            found[section] = gpu()
        found["about"] = {"threads": 1, "torch": torch.__version__, "timm": timm.__version__,
                          "cpu": torch.backends.cpu.get_cpu_capability()}  # fmt: skip
        write_atomic(args.out, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
