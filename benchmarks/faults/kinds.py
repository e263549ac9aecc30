"""The other faults: each returns what happened, and whether nothing was lost."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from work import Work, complete, told

from noahnas import Space
from noahnas.errors import NoahnasError
from noahnas.files import read_sealed_json, sealed_json
from noahnas.pipeline import resume
from noahnas.study import Study

MANY = 200  # trials, in which workers are killed
MOMENTS = 40  # of Ctrl-C
RESUMED = 10  # one in so many of these is resumed
Happened = tuple[str, bool]


def interrupted(work: Work) -> Happened:
    """Ctrl-C at random moments from the start of Python on; some of the runs are then resumed.

    A run that has begun must end with 130 and name the command that goes on. Before the first
    import of noahnas Python itself heeds the signal, and dies by it: nothing was begun then, and
    nothing can be lost.
    """
    rng, ends, wrong, resumed = random.Random(0), Counter[str](), [], 0
    begin = time.monotonic()
    work.run(*work.search(work.fresh("interrupted")))
    whole = time.monotonic() - begin
    for number in range(MOMENTS):
        run = work.fresh("interrupted")
        process = work.begin(*work.search(run))
        time.sleep(rng.uniform(0.1, whole))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        begun, code = (run / "run.json").exists(), process.returncode
        hinted = f"noahnas search --resume {run}" in err
        if code == 130 and "Traceback" not in err and (hinted or not begun):
            ends["exit 130"] += 1
        elif code == -signal.SIGINT and not run.exists():
            ends["died by the signal before anything was begun"] += 1
        elif code == 0:
            ends["had ended before"] += 1
        else:
            wrong.append(f"exit {code}: {err[-200:]}")
        if number % RESUMED == 0:
            resumed += 1
            done = work.run(*work.go_on(run))
            if done.returncode or told(run) != told(work.whole):
                wrong.append(f"resumed: {done.stderr[-200:]}")
    text = ", ".join(f"{what}: {count} times" for what, count in ends.items())
    text += f"; {resumed} of these were resumed, to the same result"
    return "; ".join([text, *wrong]), not wrong


def training(work: Work, name: str) -> tuple[Path, subprocess.Popen[str]]:
    """A run in a place of its own, and its process, which trains the supernet."""
    run = work.fresh(name)
    process = work.begin(*work.search(run))
    while not (run / "supernet.ckpt").exists():
        time.sleep(0.01)
    return run, process


def terminated(work: Work) -> Happened:
    """SIGTERM while the supernet is trained, then resumed."""
    run, process = training(work, "terminated")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    ok = process.returncode == 130 and f"noahnas search --resume {run}" in err
    done = work.run("search", "--resume", str(run))
    same = done.returncode == 0 and told(run) == told(work.whole)
    return f"exit {process.returncode}, the command that goes on is printed; resumed", ok and same


def worker_killed(work: Work) -> Happened:
    """SIGKILL to each of two workers while both evaluate."""
    many = ("--trials", str(MANY))
    alone, run = work.fresh("alone"), work.fresh("workers")
    work.run(*work.search(alone, *many))
    process = work.begin(*work.search(run, *many, "--workers", "2"))
    while process.poll() is None and not complete(run):
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    victims = [child for child in children if "ray::_Worker" in " ".join(child.cmdline())]
    before = complete(run)
    for victim in victims:
        victim.kill()
    _, err = process.communicate()
    if process.returncode or len(victims) != 2 or before >= MANY:
        return f"{len(victims)} workers, {before} trials: {err[-300:]}", False
    same = told(run) == told(alone)
    what = (
        f"both killed after {before} of {MANY} trials: replaced, and their candidates asked again"
    )
    return what, same


def two_at_once(work: Work) -> Happened:
    """A second process on a run whose first is stopped, then killed."""
    run, first = training(work, "two")
    first.send_signal(signal.SIGSTOP)
    second = work.run("search", "--resume", str(run))
    first.kill()
    first.communicate()
    third = work.run("search", "--resume", str(run))
    refused = second.returncode == 2 and "another process is at work" in second.stderr
    same = third.returncode == 0 and told(run) == told(work.whole)
    return "the second is refused; once the first is killed, another goes on", refused and same


def damaged(work: Work) -> Happened:
    """Each file cut short and with one bit flipped, at several places."""
    found = tried = 0
    rng = random.Random(0)
    for name in ("run.json", "stages.json", "supernet.safetensors", "study.journal"):
        for how in range(6):
            run = work.copy("damaged")
            (run / "result.json").unlink()
            stages = read_sealed_json((run / "stages.json").read_bytes())
            kept = {key: stages[key] for key in ("supernet", "spread")}
            (run / "stages.json").write_bytes(sealed_json(kept))
            content = bytearray((run / name).read_bytes())
            if how == 0 and name != "study.journal":
                del content[len(content) // 2 :]
            else:
                content[rng.randrange(len(content) - 1)] ^= 1 << rng.randrange(8)
            (run / name).write_bytes(content)
            tried += 1
            try:
                resume(run)
            except NoahnasError as e:
                found += name in str(e) and "damaged" in str(e)
    for file in (work.place / "cache/images").glob("*/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        tried += 1
        done = work.run("data", "check", str(work.data), "--no-sheet", "--size", "16")
        found += done.returncode == 0 and "decoding anew" in done.stderr
        break
    said = f"{found} of {tried} found by digest and named: a run's are refused, a cache is rebuilt"
    return said, found == tried


def full_disk(work: Work) -> Happened:
    """20 KB left of a file system of 4 MB; then all of it."""
    disk = work.fresh("disk")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "t", str(disk)], check=True)
    try:
        (disk / "ballast").write_bytes(bytes(4 * 2**20 - 20_480))
        run = disk / "run"
        first = work.run(*work.search(run))
        half = [p for p in run.iterdir() if p.name not in ("run.json", "run.lock")]
        (disk / "ballast").unlink()
        second = work.run("search", "--resume", str(run))
        ok = first.returncode == 2 and "No space left" in first.stderr and not half
        same = second.returncode == 0 and told(run) == told(work.whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return "exit 2, the file is named, nothing half-written; with room it goes on", ok and same


def read_only(work: Work) -> Happened:
    """A file system that is mounted read-only."""
    disk = work.fresh("disk")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "t", str(disk)], check=True)
    try:
        done = work.run(*work.search(disk / "run"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    ok = done.returncode == 2 and "Read-only file system" in done.stderr
    return "exit 2 before anything is trained", ok and "Traceback" not in done.stderr


def diverged(work: Work) -> Happened:
    """Retraining at a learning rate of 1e30, after a supernet and a search as they should be."""
    recipe = work.place / "wild.yaml"
    recipe.write_text(
        "name: wild\ndescription: diverges\npolicy: paper\ntrials: 4\nbatch: 4\n"
        "supernet: {epochs: 3, lr: 1e-3, batch_size: 64}\n"
        "retrain: {epochs: 1, lr: 1e30, batch_size: 64}\n"
    )
    run = work.fresh("wild")
    args = ["--data", str(work.data), "--backbone", "vit-digits", "--recipe", str(recipe)]
    done = work.run("search", "--out", str(run), *args)
    ok = done.returncode == 2 and "the loss of Arch(" in done.stderr and "at step" in done.stderr
    space = Space.load("tiny").bind(blocks=4, width=48)
    trials = len(Study.journal(run / "study.journal", space).entries())
    kept = trials == 4 and (run / "supernet.safetensors").exists()
    left = [name for name in ("best.safetensors", "result.json") if (run / name).exists()]
    what = f"exit 2, step and architecture named; the supernet and {trials} trials are kept"
    return what, ok and kept and not left


SCARCE = """
import resource
from dataclasses import replace
from pathlib import Path
import torch
from noahnas import Arch
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Split, Task, load_data
from noahnas.policy import only
from noahnas.recipe import Stage
from noahnas.train import build, train
import sys, json

torch.set_num_threads(1)
place, limit = Path(sys.argv[1]), int(sys.argv[2])
arch, backbone = Arch(lora=(2, 0, 0, 1)), load_backbone("vit-digits")
data = load_data("digits", LoadOptions((16, 16)))
many = Split(data.train.images.repeat(8, 1, 1, 1), data.train.labels.repeat(8))
task = Task(replace(data, val=many), backbone.preprocess, torch.device("cpu"))
net = build(backbone, arch, 5, Stage(1, 1e-3, 8), 0)
few = Split(many.images[:64], many.labels[:64])
train(net, task, few, Stage(1, 0.0, 32), name="w", plan=only(arch), seed=0,
      checkpoint=place / "warm")
if limit:
    lines = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) for line in lines if line.startswith("VmSize")) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + limit * 2**20,) * 2)
log = train(net, task, many, Stage(2, 1e-3, 1600), name="x", plan=only(arch), seed=0,
            checkpoint=place / "x")
print(json.dumps(list(log.losses)))
"""


def scarce(work: Work) -> Happened:
    """Training under a limit on the address space, beside the same without one."""
    done = []
    for limit in (0, 230):
        place = work.fresh(f"scarce-{limit}")
        place.mkdir()
        code = [sys.executable, "-c", SCARCE, str(place), str(limit)]
        done.append(subprocess.run(code, capture_output=True, text=True, env=work.environment))
    if any(one.returncode for one in done):
        return done[-1].stderr[-300:], False
    free, found = (json.loads(one.stdout) for one in done)
    same = bool(np.allclose(free, found, atol=1e-4))
    halved = done[1].stderr.count("memory ran out; going on with")
    times = "once" if halved == 1 else f"{halved} times"
    what = f"halved {times}, and told; the losses are those of whole batches within 1e-4"
    return what, same and halved > 0 and not done[0].stderr


FAULTS: dict[str, Callable[[Work], Happened]] = {
    f"Ctrl-C at {MOMENTS} random moments": interrupted,
    "SIGTERM": terminated,
    "workers killed mid-evaluation": worker_killed,
    "two searches in one run directory": two_at_once,
    "files cut short, one bit flipped": damaged,
    "a full disk": full_disk,
    "a read-only disk": read_only,
    "a loss that is not finite": diverged,
    "memory that runs out in a batch": scarce,
}
