"""Where memory runs out, work goes on with half as many images at a time, and says so."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import tempfile
import weakref

import pytest
import torch

from noahnas import Arch, Supernet
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Task, load_data
from noahnas.errors import OutOfMemoryError
from noahnas.evaluate import evaluate
from noahnas.memory import halving, release, settled
from noahnas.supernet import State

KEPT = """
import sys
from pathlib import Path
import torch
from noahnas.memory import hold, release

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) // 256  # MB

if sys.argv[1] == "hold":
    hold()
some = [torch.ones(2**18) for _ in range(200)]  # 200 MB in blocks of 1 MB
most = resident()
del some
kept = resident()
release()
print(most - kept, kept - resident())
"""


def test_freed_memory_is_kept_once_it_is_held_and_given_back_by_release() -> None:
    def told(how: str) -> list[int]:
        # glibc's own limit as it is at first: a large block that an import frees would raise it
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
        command = [sys.executable, "-c", KEPT, how]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
        return [int(word) for word in done.stdout.split()]

    given, back = told("not")
    assert (given > 150, back < 50) == (True, True)
    given, back = told("hold")
    assert (given < 50, back > 150) == (True, True)


LIMITED = """
import resource, sys
from pathlib import Path
from dataclasses import replace
import torch
from noahnas import Arch
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Split, Task, load_data
from noahnas.evaluate import evaluate
from noahnas.policy import only
from noahnas.recipe import Stage
from noahnas.train import build, train

torch.set_num_threads(1)
what, megabytes, place = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
arch, backbone = Arch(lora=(2, 0, 0, 1)), load_backbone("vit-digits")
data = load_data("digits", LoadOptions((16, 16)))
many = Split(data.train.images.repeat(8, 1, 1, 1), data.train.labels.repeat(8))
task = Task(replace(data, val=many), backbone.preprocess, torch.device("cpu"))
net = build(backbone, arch, 5, Stage(1, 1e-3, 8), 0)
stage = Stage(epochs=2, lr=1e-3, batch_size=1600)

def work(size, name):
    if what == "train":
        log = train(net, task, many, replace(stage, batch_size=size), name="x", plan=only(arch),
                    seed=0, checkpoint=place / name)
        return log.losses
    return evaluate(net, arch, task, batch_size=size).loss

if what == "train":  # libraries take what they need
    one = Split(many.images[:64], many.labels[:64])
    train(net, task, one, Stage(1, 0.0, 32), name="w", plan=only(arch), seed=0,
          checkpoint=place / "warm")
else:
    work(32, "warm")
if megabytes:
    lines = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) for line in lines if line.startswith("VmSize")) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20,) * 2)
if what == "train":
    print(work(1600, "limited" if megabytes else "free"))
else:
    print(work(1600, ""))
"""


def limited(what: str, megabytes: int) -> tuple[str, str]:
    """What a process says that may map so many megabytes more.

    oneDNN maps the code that it makes for each size by itself. In one process of five a block that
    is in use lies at the end of the heap, which then keeps all that the limit allows, so there is
    no room for code at any size, and the process says so. Another one's heap lies otherwise.
    """
    for _ in range(6):
        with tempfile.TemporaryDirectory() as place:
            code = [sys.executable, "-c", LIMITED, what, str(megabytes), place]
            done = subprocess.run(code, capture_output=True, text=True, check=False)
        if "with one image at a time (could not create a primitive)" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited as Linux does")
@pytest.mark.parametrize(("what", "megabytes"), [("train", 230)])
def test_where_the_system_gives_no_more_memory_batches_are_halved(
    what: str, megabytes: int
) -> None:
    free, said = limited(what, 0)
    assert said == ""
    found, said = limited(what, megabytes)
    assert "memory ran out; going on with 800 images at a time" in said
    pairs = zip(free.strip("()\n").split(","), found.strip("()\n").split(","), strict=True)
    for a, b in pairs:
        assert float(b) == pytest.approx(float(a), abs=1e-4)


def test_evaluation_goes_on_with_smaller_batches(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network stands for a device without memory for more than 30 images, as none is here."""
    backbone, arch = load_backbone("vit-digits"), Arch(lora=(2, 0, 0, 1), vpt=(3, 0, 2, 0))
    data = load_data("digits", LoadOptions((16, 16)))
    task = Task(data, backbone.preprocess, torch.device("cpu"))
    net = Supernet(backbone.model, arch, len(data.classes))
    whole, begin = evaluate(net, arch, task, batch_size=80), net.begin

    def scarce(images: torch.Tensor) -> State:
        if len(images) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return begin(images)

    monkeypatch.setattr(net, "begin", scarce)
    with caplog.at_level(logging.WARNING):
        found = evaluate(net, arch, task, batch_size=80)
    assert [message.split(" going on ")[1] for message in caplog.messages] == [
        "with 40 images at a time", "with 20 images at a time"
    ]  # fmt: skip
    assert found.loss == pytest.approx(whole.loss, abs=1e-6)


def test_one_image_too_many_is_told_in_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def work(size: int) -> None:
        sizes.append(size)
        raise MemoryError

    with caplog.at_level(logging.WARNING), pytest.raises(OutOfMemoryError, match="one image"):
        halving(work, 6, "search")
    assert sizes == [6, 3, 1]
    assert len(caplog.messages) == 2


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        halving(lambda _: (_ for _ in ()).throw(RuntimeError("shapes differ")), 4, "search")


def test_memory_of_a_finished_run_is_given_back() -> None:
    """Reference cycles are collected, and freed pages go back to the system."""
    script = """
import gc
from pathlib import Path
import torch
from noahnas.memory import release
torch.set_num_threads(1)
gc.disable()
class Run: pass
def rss():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024
release()
before = rss()
for _ in range(400):  # a run whose small tensors lie between others, in a cycle
    run = Run()
    run.own, run.tensors = run, [torch.ones(16_000) for _ in range(10)]
del run
held = rss()
release()
print(before, held, rss())
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    before, held, after = map(float, told.split())
    assert held - before > 100, told
    assert after - before < 0.2 * (held - before), told


def test_what_is_there_before_runs_is_not_looked_at_and_what_they_make_is() -> None:
    class Loop:
        def __init__(self) -> None:
            self.own = self

    @settled()
    def runs() -> None:
        assert gc.get_freeze_count() > 0
        with settled():
            pass
        assert gc.get_freeze_count() > 0  # of the outer one
        gone = weakref.ref(Loop())
        release()
        assert gone() is None
        raise KeyboardInterrupt

    assert gc.get_freeze_count() == 0
    with pytest.raises(KeyboardInterrupt):
        runs()
    assert gc.get_freeze_count() == 0
