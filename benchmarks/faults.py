"""Every fault that a run is to survive, done to real processes; the table of docs/reliability.md.

    python benchmarks/faults.py --kills 50

A round starts a search and kills it with SIGKILL in each of its stages, resuming it after each
kill, to its end; the sequence of trials and the result must be those of an undisturbed run. The
moment is drawn over all that the stage took in an undisturbed run, in seconds of the processor, so
that other work on the machine does not shift it. The other faults come first. What is done stands
in benchmarks/results/faults.json and is not repeated: the same command goes on, as long as versions
are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pages import put
from PIL import Image

from noahnas import Space
from noahnas.errors import NoahnasError
from noahnas.files import read_sealed_json, sealed_json, write_atomic
from noahnas.pipeline import resume
from noahnas.rundir import versions
from noahnas.study import Study

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results/faults.json"
SIZES = ["--backbone", "vit-digits", "--trials", "30", "--supernet-epochs", "8",
         "--retrain-epochs", "8"]  # fmt: skip
STAGES = ("data cache", "supernet training", "search", "retraining", "report")
LOOK = 0.001  # seconds between two looks at a process
MANY = 200  # trials, in which workers are killed
MOMENTS = 40  # of Ctrl-C
RESUMED = 10  # one in so many of these is resumed
Record = dict[str, Any]


def pictures(folder: Path) -> Path:
    """600 images of three classes; decoding them takes a moment."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for i in range(200):
            image = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
            image[:, label * 16 : label * 16 + 16] += 150
            Image.fromarray(image).save(folder / name / f"{i:03}.png")
    return folder


class Work:
    """A directory with the data, a cache of its own and an undisturbed run."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.environment["NOAHNAS_CACHE"] = os.environ["NOAHNAS_CACHE"] = str(place / "cache")
        self.data = place / "pictures"
        if not self.data.exists():
            pictures(self.data)
        self.whole = place / "whole"

    def undisturbed(self) -> dict[str, float]:
        """Do the run that is not disturbed; seconds of the processor that each stage took."""
        shutil.rmtree(self.place / "cache", ignore_errors=True)
        process = self.begin(*self.search(self.fresh("whole")))
        began, used = dict[str, float](), 0.0
        while process.poll() is None:
            used, stage = worked(process), stage_of(self, self.whole)
            if stage:
                began.setdefault(stage, used)
            time.sleep(LOOK)
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert list(began) == list(STAGES), began
        times = [*began.values(), used]
        return {stage: times[i + 1] - times[i] for i, stage in enumerate(STAGES)}

    def search(self, out: Path, *more: str) -> list[str]:
        """The arguments of a new search."""
        return ["search", "--out", str(out), "--data", str(self.data), *SIZES, *more]

    def begin(self, *args: str) -> subprocess.Popen[str]:
        """A process that was started."""
        return subprocess.Popen(
            [sys.executable, "-m", "noahnas", *args], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=self.environment,
            # A shell's background job ignores SIGINT, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A process that has ended."""
        process = self.begin(*args)
        out, err = process.communicate()
        return subprocess.CompletedProcess([*args], process.returncode, out, err)

    def go_on(self, run: Path) -> list[str]:
        """The arguments by which a user goes on with a run, whatever there is of it."""
        begun = (run / "run.json").exists()
        return ["search", "--resume", str(run)] if begun else self.search(run)

    def fresh(self, name: str) -> Path:
        """A place where nothing is."""
        shutil.rmtree(self.place / name, ignore_errors=True)
        return self.place / name

    def copy(self, name: str) -> Path:
        """A copy of the undisturbed run."""
        return Path(shutil.copytree(self.whole, self.fresh(name)))


def told(run: Path) -> tuple[list[tuple[str, float]], Record]:
    """The sequence of trials, and the result but for seconds and what was computed together."""
    space = Space.load("tiny").bind(blocks=4, width=48)
    entries = Study.journal(run / "study.journal", space).entries()
    result = read_sealed_json((run / "result.json").read_bytes())
    for cost in result["cost"].values():
        cost.pop("seconds", None)
        cost.pop("computed_passes", None)  # a kill in an ask parts what is computed together
    del result["val"]["computed"]  # so it does for the winner; and each worker shares its own
    return [(e.proposal.arch.digest, e.result.accuracy) for e in entries if e.result], result


def complete(run: Path) -> int:
    """Trials of a run that are done."""
    journal = run / "study.journal"
    return journal.read_bytes().count(b'"state":1') if journal.exists() else 0


# --- kill -9 ---------------------------------------------------------------------------------


def worked(process: subprocess.Popen[str]) -> float:
    """Seconds of the processor that a process has used: other work on the machine adds none."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def stage_of(work: Work, run: Path) -> str:
    """The stage that a process on a run is in, by the files there are; "" = none yet."""
    if not (run / "run.json").exists():
        return STAGES[0] if list((work.place / "cache").glob("images/.*")) else ""
    stages = run / "stages.json"
    done = stages.read_text() if stages.exists() else ""
    ends = {"retrain": "report", "search": "retraining", "supernet": "search"}
    return next((now for name, now in ends.items() if f'"{name}": {{' in done), STAGES[1])


def round_of_kills(work: Work, lengths: dict[str, float], number: int) -> Record:
    """A search that is killed in each stage and resumed to its end."""
    rng = random.Random(number)
    run, kills = work.fresh(f"killed-{number}"), []
    shutil.rmtree(work.place / "cache", ignore_errors=True)
    for nth, stage in enumerate(STAGES):
        moment = rng.uniform(0, lengths[stage])
        if stage_of(work, run) in STAGES[nth:]:
            continue  # the last kill came later than it was aimed at
        process = work.begin(*work.go_on(run))
        began = None
        while process.poll() is None and (began is None or worked(process) < began + moment):
            if began is None and stage_of(work, run) == stage:
                began = worked(process)
            time.sleep(LOOK)
        process.kill()
        _, err = process.communicate()
        kills.append(
            {
                "aimed": stage,
                "cpu_seconds": round(moment, 3),  # after the stage began
                "of": round(lengths[stage], 3),  # what it took in an undisturbed run
                "exit": process.returncode,
                "stage": stage_of(work, run) or stage,  # in which it died
                "hit": process.returncode == -signal.SIGKILL,
            }
        )
        if process.returncode not in (0, -signal.SIGKILL):
            return {"kills": kills, "same": False, "said": err[-500:]}
    done = work.run(*work.go_on(run))
    same = done.returncode == 0 and told(run) == told(work.whole)
    left = [str(path) for path in run.rglob(".*.tmp")]
    if same and not left:
        shutil.rmtree(run)
    found = {"date": today(), "kills": kills, "same": same, "left": left}
    return found if same else found | {"said": done.stderr[-500:]}


def today() -> str:
    """The date, by UTC."""
    return datetime.now(UTC).date().isoformat()


# --- the other faults: each returns what happened, and whether nothing was lost ---------------

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


def table(found: Record) -> str:
    """The faults as Markdown."""
    rounds = found["rounds"].values()
    kills = [kill for one in rounds for kill in one["kills"] if kill["hit"]]
    kept = "yes" if all(one["same"] and not one.get("left") for one in rounds) else "**no**"
    lines = ["| fault | what happened | nothing lost |", "|---|---|---|"]
    for stage in STAGES:
        own = [kill for kill in kills if kill["stage"] == stage]
        what = f"{len(own)} times"
        aimed = [kill for kill in own if kill.get("aimed") == stage]
        shares = [kill["cpu_seconds"] / kill["of"] for kill in aimed]
        if shares:
            what += f", {min(shares):.0%} to {max(shares):.0%} through it"
        what += "; resumed, each to the trials and the result of an undisturbed run"
        lines.append(f"| `kill -9` in: {stage} | {what} | {kept} |")
    for name, (what, ok) in found["faults"].items():
        lines.append(f"| {name} | {what} | {'yes' if ok else '**no**'} |")
    if "versions" in found:
        told = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        lines += ["", f"{found['date']}; {told}."]
    return "\n".join(lines)


def begun(out: Path) -> Record:
    """What was done before, by the same versions."""
    if not out.exists():
        return {"date": today(), "versions": versions(), "rounds": {}, "faults": {}}
    found: Record = json.loads(out.read_text())
    if found.get("versions") != versions():
        raise SystemExit(f"{out} was made with other versions; remove it to begin anew")
    return found


def main() -> None:
    """Do what is not done, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "noahnas-faults")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Another leaves the page alone.")
    parser.add_argument("--table", action="store_true", help="Write the table of what is done.")
    parser.add_argument("--only", choices=FAULTS, help="Do this fault alone, anew.")
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.table else begun(options.out)

    def keep() -> None:
        write_atomic(options.out, (json.dumps(found, indent=1) + "\n").encode())
        if options.out == RESULTS and found["rounds"]:
            put("reliability.md", "faults", table(found))

    def kills() -> int:
        return sum(kill["hit"] for one in found["rounds"].values() for kill in one["kills"])

    if not options.table:
        options.work.mkdir(parents=True, exist_ok=True)
        work = Work(options.work)
        lengths = work.undisturbed()
        print("seconds of the processor by stage", lengths, flush=True)
        for name, fault in FAULTS.items():
            if name == options.only or (not options.only and name not in found["faults"]):
                found["faults"][name] = fault(work)
                print(name, found["faults"][name], flush=True)
                keep()
        while not options.only and kills() < options.kills:
            number = str(len(found["rounds"]))
            found["rounds"][number] = round_of_kills(work, lengths, int(number))
            print("round", number, found["rounds"][number], flush=True)
            keep()
    keep()
    print(table(found))


if __name__ == "__main__":
    main()
