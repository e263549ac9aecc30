"""Training by several processes: real ones, on the CPU, connected by gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from noahnas.errors import NoahnasError, RanksError
from noahnas.files import read_sealed_json
from noahnas.ranks import asked, joined
from tests.processes import PATIENCE, begun, ended

# Neither batch size nor split can be halved; archs differ within a batch; images are augmented.
RECIPE = """
name: exact
description: no rank draws anything of its own
supernet: {epochs: EPOCHS, lr: 2.0e-3, batch_size: 63, warmup_epochs: 1, augment: crop-flip}
policy: warm+mixed
trials: 6
batch: 3
retrain: {epochs: EPOCHS, lr: 2.0e-3, batch_size: 61, warmup_epochs: 1, mixup: 0.2}
retrain_epochs: [1, EPOCHS]
"""
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
WEIGHTS = ("supernet.safetensors", "best.safetensors")


def command(root: Path, out: Path, *more: str, epochs: int = 2) -> list[str]:
    recipe = root / f"exact-{epochs}.yaml"
    recipe.write_text(RECIPE.replace("EPOCHS", str(epochs)))
    return ["search", "--backbone", "vit-digits", "--data", "digits", "--device", "cpu",
            "--recipe", str(recipe), "--out", str(out), *more]  # fmt: skip


def differ(one: Path, other: Path, name: str) -> float:
    """The largest difference of a weight."""
    a, b = load_file(one / name), load_file(other / name)
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def told(run: Path) -> dict[str, Any]:
    """The result without its seconds and its losses' last digits."""
    result = read_sealed_json((run / "result.json").read_bytes())
    cost = {k: v.get("passes") for k, v in result["cost"].items()}
    return {key: result[key] for key in ("arch", "evaluations", "params")} | {
        "cost": cost,
        "test": result["test"]["accuracy"],
        "val": result["val"]["accuracy"],
        "epochs": {n: val["accuracy"] for n, val in result["epochs"]["val"].items()},
    }


def done(*args: str) -> tuple[int, str]:
    process = begun(*args)
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run by one process."""
    root = tmp_path_factory.mktemp("alone")
    code, err = done("-m", "noahnas", *command(root, root / "run"))
    assert code == 0, err
    return root / "run"


def test_two_processes_train_and_find_what_one_does(tmp_path: Path, alone: Path) -> None:
    out = tmp_path / "run"
    code, err = done("-m", "noahnas", *command(tmp_path, out, "--devices", "2"))
    assert code == 0, err
    assert [differ(alone, out, name) < 1e-5 for name in WEIGHTS] == [True, True]
    assert told(out) == told(alone)
    assert {p.name for p in out.iterdir()} == {p.name for p in alone.iterdir()}
    assert err.count("retrain 2/2") == 1  # one process tells


def test_two_processes_of_torchrun_retrain_as_one_does(tmp_path: Path, alone: Path) -> None:
    given = command(tmp_path, tmp_path / "run")[1:]
    winner = ("--arch", str(alone / "best.yaml"))
    code, err = done(*TORCHRUN, "-m", "noahnas", "retrain", *winner, *given)
    assert code == 0, err
    assert differ(alone, tmp_path / "run", "best.safetensors") < 1e-5
    assert err.count("retrain 2/2") == 1
    about = read_sealed_json((tmp_path / "run" / "run.json").read_bytes())
    assert (about["devices"], about["nodes"]) == (2, 1)


@pytest.mark.parametrize(("stage", "devices"), [("supernet", "1"), ("epochs-2", "2")])
def test_an_interrupted_training_ends_with_130_and_goes_on_with_any_number_of_devices(
    stage: str, devices: str, tmp_path: Path, alone: Path
) -> None:
    out = tmp_path / "run"
    ready = (out / f"{stage}.ckpt").exists
    asked_for = command(tmp_path, out, "--devices", "2")
    code, _, err = ended(ready, signal.SIGINT, *asked_for)
    assert (code, err.count("interrupted; go on with")) == (130, 1)
    assert "Traceback" not in err
    code, err = done("-m", "noahnas", "search", "--resume", str(out), "--devices", devices)
    assert code == 0, err
    assert [differ(alone, out, name) < 1e-5 for name in WEIGHTS] == [True, True]


def test_sigterm_to_torchrun_ends_both_processes_and_the_run_goes_on(
    tmp_path: Path, alone: Path
) -> None:
    out = tmp_path / "run"
    process = begun(*TORCHRUN, "-m", "noahnas", *command(tmp_path, out))
    deadline = time.monotonic() + PATIENCE
    while not (out / "supernet.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    ranks = children(process.pid)
    process.send_signal(signal.SIGTERM)  # as a scheduler does
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err  # torchrun's own, whatever its processes end with
    assert err.count("interrupted; go on with") == 1
    assert len(ranks) >= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    code, err = done("-m", "noahnas", "search", "--resume", str(out), "--devices", "1")
    assert code == 0, err
    assert [differ(alone, out, name) < 1e-5 for name in WEIGHTS] == [True, True]


@pytest.mark.parametrize("which", ["the one that follows", "the one that leads"])
def test_a_killed_process_ends_the_other(tmp_path: Path, which: str) -> None:
    out = tmp_path / "run"
    process = begun("-m", "noahnas", *command(tmp_path, out, "--devices", "2", epochs=500))
    deadline = time.monotonic() + PATIENCE
    while not (out / "supernet.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (other,) = children(process.pid)
    os.kill(other if which == "the one that follows" else process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    if which == "the one that follows":
        assert process.returncode == 2
        assert "another process of this training has ended" in err
        assert f"go on with: noahnas search --resume {out}" in err
    assert "Traceback" not in err
    until = time.monotonic() + 30
    while Path(f"/proc/{other}").exists() and time.monotonic() < until:
        if Path(f"/proc/{other}/stat").read_text().split()[2] == "Z":  # dead; init is slow
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{other}").exists()


TOGETHER = """
import sys
from contextlib import suppress
from pathlib import Path
import numpy as np
import torch
from noahnas import Arch, Space
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Split, Task, load_data
from noahnas.errors import TrainingError
from noahnas.policy import only, policy
from noahnas.ranks import ALONE, joined
from noahnas.recipe import Stage
from noahnas.train import build, train
import noahnas.train as module

torch.set_num_threads(1)
data = load_data("digits", LoadOptions((16, 16)))
space = Space.load("tiny").bind(blocks=4, width=48)
few = Split(data.train.images[:50], data.train.labels[:50])
root = Path(sys.argv[1])


def trained(ranks, how, name):
    backbone = load_backbone("vit-digits")
    task = Task(data, backbone.preprocess, torch.device("cpu"))
    lr = 3e-4 if how == "full" else 2e-3  # as recipes have it: AdamW's steps are as long as that
    stage = Stage(epochs=2, lr=lr, batch_size=16, warmup_epochs=0)
    arch = Arch(adapter=(8,) * 4, lora=(4,) * 4, vpt=(2,) * 4)
    plan = policy("warm+sandwich", space) if how == "sandwich" else only(arch)
    arch = space.largest if how == "sandwich" else arch
    net = build(backbone, arch, len(data.classes), stage, 0, full=how == "full")
    whole = module._gradients
    if how == "memory":  # a mock: this machine's memory cannot be filled safely
        def scarce(net, optimizer, batch, most, ranks=ALONE):
            if ranks.size > 1 and ranks.rank == 1 and most > 4:
                raise MemoryError("mocked")
            return whole(net, optimizer, batch, most, ranks)
        module._gradients = scarce
    if how == "nan":
        for p in net.trainable().values():
            p.data.fill_(float("nan"))
    said = ""
    try:
        train(net, task, few, stage, name="t", plan=plan, seed=0,
              checkpoint=root / f"{name}.ckpt", ranks=ranks)
    except TrainingError as e:
        said = str(e)
    module._gradients = whole
    return net, said


with joined(None, None, "cpu") as ranks:
    for how in ("sandwich", "full", "memory", "nan"):
        net, said = trained(ranks, how, f"{how}-two")
        if ranks.leads:
            one, told = trained(ALONE, how, f"{how}-one")
            most, a, b = 0.0, net.trainable(), one.trainable()
            for name in a:
                gap = (a[name] - b[name]).abs()
                if name.endswith("qkv.bias"):  # those of keys change nothing: AdamW steps by noise
                    gap = gap.view(3, -1)[[0, 2]]
                most = max(most, float(gap.max()))
            print(how, most, said == told, said)
        ranks.share()
"""


def test_policies_full_training_and_faults_are_those_of_one_process(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    process = begun(*TORCHRUN, str(script), str(tmp_path))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    found = {
        how: rest.split(maxsplit=2) for how, rest in (x.split(" ", 1) for x in out.splitlines())
    }
    for how in ("sandwich", "full", "memory"):
        assert float(found[how][0]) < 1e-5, out
    assert "memory ran out" in err
    assert found["nan"][1] == "True"
    assert "the loss of Arch(" in found["nan"][2]
    assert "is nan" in found["nan"][2]


def test_a_process_that_cannot_begin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noahnas.ranks.FOLLOWER", "raise SystemExit(3)")
    refused = pytest.raises(RanksError, match=r"before it could begin \(exit code 3\)")
    with refused, joined(2, None, "cpu"):
        pass
    monkeypatch.setattr("noahnas.ranks.FOLLOWER", "import time; time.sleep(60)")
    monkeypatch.setattr("noahnas.ranks.BEGIN", 0.5)
    with (
        pytest.raises(RanksError, match="1 processes of this training did not begin"),
        joined(2, None, "cpu"),
    ):
        pass


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoahnasError, match="--nodes needs torchrun"):
        asked(None, 2)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    for name, value in (("LOCAL_WORLD_SIZE", "2"), ("MASTER_ADDR", "x"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert asked(None, None) == (2, 2)
    with pytest.raises(NoahnasError, match="--devices is 3, but torchrun began 2"):
        asked(3, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there may be GPUs enough")
def test_a_search_by_one_process_does_not_import_fabric() -> None:
    code = (
        "import sys\n"
        "from noahnas.ranks import joined\n"
        "with joined(None, None, 'cpu') as ranks: pass\n"
        "sys.exit('lightning_fabric' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
