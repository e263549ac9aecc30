"""Candidates a second with one of Ray's workers and with two, and what Ray costs a candidate.

    python benchmarks/scale/workers.py [--rounds 10] [--candidates 40]

The shipped ViT with a supernet of the space `demo` (weights as they are drawn), the validation
split of `count`, random architectures, a thread for each worker. Rounds take turns between this
process, one worker and two, on the same candidates, so that other work on the machine meets all
of them; and two plain processes without Ray, which wait for nobody, score half of them each. In the
first rounds each process fills its store of tokens (half a GiB of new memory), which is told apart.
What Ray costs is the time of one worker beside this process, and of a call that computes nothing.
Writes results/workers.json and the table of docs/workers.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noahnas import Space
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Task, load_data
from noahnas.evaluate import Result, Scores
from noahnas.files import json_text, write_atomic
from noahnas.memory import hold
from noahnas.pool import Packed, Pool, Worker, packed
from noahnas.progress import silent
from noahnas.rundir import versions
from noahnas.strategy import Proposal
from noahnas.supernet import Supernet
from noahnas.workers import Workers

OUT = Path(__file__).parents[1] / "results" / "workers.json"
PAGE = Path(__file__).parents[2] / "docs" / "workers.md"
BEGIN, END = "<!-- workers: begin -->", "<!-- workers: end -->"
LIMIT = 1.8  # times as many candidates a second with two workers as with one
CALLS = 200  # that compute nothing
WARMING = 4  # rounds in which stores of tokens fill
Score = Callable[[Sequence[Proposal]], Iterable[Result]]


def timed(score: Score, proposals: Sequence[Proposal]) -> float:
    """Candidates a second."""
    began = time.perf_counter()
    count = sum(1 for _ in score(proposals))
    return count / (time.perf_counter() - began)


def bounds(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median of paired ratios, and its 95 % bootstrap interval."""
    values = np.array(ratios)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (10_000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def measured(rounds: int, candidates: int) -> dict[str, Any]:
    """Candidates a second, by round, and milliseconds of an empty call."""
    torch.set_num_threads(1)
    hold()  # as a process does that has trained
    backbone = load_backbone("vit-nano")
    space = Space.load("demo").bind(backbone.model)
    data = load_data("count", LoadOptions(backbone.preprocess.size))
    torch.manual_seed(0)
    net = Supernet(backbone.model, space, len(data.classes))
    task = Task(data, backbone.preprocess, torch.device("cpu"))
    archs = space.sample(np.random.default_rng(0), (WARMING + rounds) * candidates, prior="paper")
    found: dict[str, list[float]] = {"here": [], "1": [], "2": [], "plain": []}
    warming: dict[str, list[float]] = {name: [] for name in found}
    own = Scores(net, task)

    def here(proposals: Sequence[Proposal]) -> Iterable[Result]:
        return (own([p.arch], [p.images])[0] for p in proposals)

    with Workers(2)._connected(cuda=False) as ray:
        data, tensors = packed((net, task, "accuracy"))
        about = [ray.put(data), *map(ray.put, tensors)]
        worker = ray.remote(num_cpus=0)(Worker)
        pools = {
            str(n): Pool(ray, lambda: worker.remote(torch.__version__, 1, *about), n)
            for n in (1, 2)
        }
        pair = Pair(packed((net, task, "accuracy")))
        scorers: dict[str, Score] = {"here": here, "plain": pair.scored}
        scorers |= {n: pool.scored for n, pool in pools.items()}
        for pool in pools.values():
            pool.wait(silent)
        for turn in range(WARMING + rounds):
            part = archs[turn * candidates : (turn + 1) * candidates]
            for name, score in scorers.items():
                speed = timed(score, [Proposal(arch) for arch in part])
                (warming if turn < WARMING else found)[name].append(speed)
                print(f"round {turn}: {name}: {speed:.1f} candidates a second", flush=True)
        pair.end()
        empty = []
        for _ in range(CALLS):
            began = time.perf_counter()
            ray.get(pools["1"].workers[0].ready.remote())
            empty.append(1000 * (time.perf_counter() - began))
    return {"candidates_a_second": found, "warming": warming, "empty_call_ms": empty}


class Pair:
    """Two processes without Ray, each with its half of the candidates."""

    def __init__(self, parts: Packed) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for _ in range(2):
            ours, theirs = context.Pipe()
            context.Process(target=answer, args=(theirs, parts), daemon=True).start()
            self.pipes.append(ours)
        for pipe in self.pipes:
            pipe.recv()

    def scored(self, proposals: Sequence[Proposal]) -> Iterable[Result]:
        """Results, all at the end."""
        for i, pipe in enumerate(self.pipes):
            pipe.send(proposals[i::2])
        return [result for pipe in self.pipes for result in pipe.recv()]

    def end(self) -> None:
        """Let them go."""
        for pipe in self.pipes:
            pipe.send(None)


def answer(pipe: Connection, parts: Packed) -> None:
    """Score what comes, one by one, as a worker does."""
    worker = Worker(torch.__version__, 1, parts[0], *parts[1])
    pipe.send(worker.ready())
    while proposals := pipe.recv():
        pipe.send([worker.score(proposal) for proposal in proposals])


def table(told: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    titles = {"here": "this process, no Ray", "1": "one worker", "2": "two workers"}
    titles["plain"] = "two processes, no Ray"
    lines = ["| who scores | candidates a second, median of rounds | slowest and fastest round |"]
    lines.append("|---|---|---|")
    for name, title in titles.items():
        speeds = told["candidates_a_second"][name]
        spread = f"{min(speeds):.1f}–{max(speeds):.1f}"
        lines.append(f"| {title} | {statistics.median(speeds):.1f} | {spread} |")
    ratio, low, high = (told[key] for key in ("ratio", "low", "high"))
    verdict = "met" if told["met"] else "missed"
    if told["met"] and told["low"] < told["limit"]:
        verdict += " by the median, though not by the interval's lower bound"
    mean, least, most = told["ray_ms_a_candidate"]
    empty = statistics.median(told["empty_call_ms"])
    return [
        *lines,
        "",
        f"Two workers score {ratio:.2f} times as many as one: median of {told['rounds']} rounds, "
        f"95 % interval {low:.2f} to {high:.2f}. Asked for are at least {told['limit']}: "
        f"{verdict}. Two plain processes that wait for nobody score "
        "{:.2f} times as many as one worker ({:.2f} to {:.2f}).".format(*told["two_plain"]),
        f"In {WARMING} rounds before these, in which each process first fills its store of tokens, "
        f"two workers scored {statistics.median(told['ratio_warming']):.2f} times as many.",
        f"One worker takes {mean:.1f} ms a candidate more than this process ({least:.1f} to "
        f"{most:.1f}); a call that computes nothing takes {empty:.2f} ms.",
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--candidates", type=int, default=40, help="of a round")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    told = measured(given.rounds, given.candidates)
    speed = told["candidates_a_second"]
    ratio, low, high = bounds([b / a for a, b in zip(speed["1"], speed["2"], strict=True)])
    allowed = bounds([b / a for a, b in zip(speed["1"], speed["plain"], strict=True)])
    warming = told["warming"]
    filling = [b / a for a, b in zip(warming["1"], warming["2"], strict=True)]
    cost = [1000 / a - 1000 / b for a, b in zip(speed["1"], speed["here"], strict=True)]
    told |= {
        "ratio": ratio,
        "low": low,
        "high": high,
        "two_plain": allowed,
        "ratio_warming": filling,
        "limit": LIMIT,
        "met": ratio >= LIMIT,
        "ray_ms_a_candidate": bounds(cost),
        "rounds": given.rounds,
        "candidates": given.candidates,
        "machine": platform.machine(),
        "versions": versions(),
    }
    write_atomic(given.out, (json_text(told, indent=1) + "\n").encode())
    print(*table(told), sep="\n")
    if given.out == OUT:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        write_atomic(PAGE, "\n".join([before + BEGIN, "", *table(told), "", END + after]).encode())


if __name__ == "__main__":
    main()
