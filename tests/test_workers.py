"""Searches whose architectures are scored by Ray's processes: real ones, killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from noahnas import Arch, Space
from noahnas.backbone import load_backbone
from noahnas.data import LoadOptions, Task, load_data
from noahnas.errors import ArchError, NoahnasError, WorkersError
from noahnas.evaluate import Scores
from noahnas.pool import Pool, Worker, packed, unpacked
from noahnas.progress import silent
from noahnas.strategy import Proposal
from noahnas.supernet import Supernet
from noahnas.workers import Workers

from .conftest import invoke
from .processes import PATIENCE, begun
from .test_kill import told, trials_done

SIZES = [
    *("--backbone", "vit-digits", "--data", "digits", "--trials", "80"),
    *("--supernet-epochs", "1", "--retrain-epochs", "1"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one process finds."""
    run = tmp_path_factory.mktemp("one") / "run"
    done = begun("-m", "noahnas", "search", "--out", str(run), *SIZES)
    _, error = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, error
    return told(run)


def scorers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The workers of a search."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "ray::Worker" in " ".join(named(child))]


def named(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:  # it has ended since
        return []
    return words


def wait_for(run: Path, trials: int, process: subprocess.Popen[str]) -> None:
    """Until so many trials of a search are evaluated."""
    deadline = time.monotonic() + PATIENCE
    while trials_done(run) < trials:
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with Workers(2)._connected(cuda=False) as module:
        yield module


def test_a_worker_that_is_killed_leaves_the_search_as_one_process_has_it(
    whole: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = begun("-m", "noahnas", "search", "--out", str(run), *SIZES, "--workers", "2")
    wait_for(run, 5, process)
    victims = scorers(process)
    assert len(victims) == 2
    for victim in victims:  # at once: both candidates are asked again
        os.kill(victim.pid, signal.SIGKILL)
    assert trials_done(run) < 80
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert told(run) == whole


def test_ctrl_c_ends_the_workers_too_and_the_search_goes_on_by_a_cluster_s(
    whole: Any, ray: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "noahnas", "search", "--out", str(run), *SIZES]
    process = subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(run, 5, process)
    others = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, error
    assert f"noahnas search --resume {run}" in error
    assert "Traceback" not in error
    assert others
    assert psutil.wait_procs(others, timeout=30)[1] == []
    assert 5 <= trials_done(run) < 80
    cluster = ray.get_runtime_context().gcs_address
    joined = begun(
        *("-m", "noahnas", "search", "--resume", str(run), "--ray", cluster, "--workers", "2")
    )
    _, error = joined.communicate(timeout=PATIENCE)
    assert joined.returncode == 0, error
    assert told(run) == whole
    assert ray.cluster_resources()["CPU"] == 2  # it runs on


# --- in this process -------------------------------------------------------------------------


class Dies:
    """A worker that no architecture agrees with."""

    def ready(self) -> bool:
        return True

    def score(self, _proposal: Proposal) -> None:
        os._exit(1)


class Sleeps:
    """A worker that takes as many tenths of a second as a proposal has images."""

    def ready(self) -> bool:
        return True

    def score(self, proposal: Proposal) -> Any:
        time.sleep((proposal.images or 0) / 10)
        return os.getpid()


@pytest.fixture(scope="module")
def searched() -> tuple[Supernet, Task]:
    torch.manual_seed(0)
    backbone = load_backbone("vit-digits")
    space = Space.load("tiny").bind(backbone.model)
    data = load_data("digits", LoadOptions(backbone.preprocess.size))
    net = Supernet(backbone.model, space, len(data.classes))
    with torch.no_grad():
        for weight in net.trainable().values():
            weight.normal_(0, 0.2)
    return net, Task(data, backbone.preprocess, torch.device("cpu"))


def test_results_come_in_the_order_asked_and_errors_as_what_they_are(
    ray: Any, searched: tuple[Supernet, Task]
) -> None:
    net, task = searched
    data, tensors = packed((net, task, "loss"))
    assert len(data) + sum(map(len, tensors)) > task.data.val.images.numel()
    kind = ray.remote(num_cpus=0)(Worker)  # more than there are CPUs
    pool = Pool(ray, lambda: kind.remote(torch.__version__, 1, data, *tensors), 2)
    archs = [Arch(lora=(d, 0, 0, 4 - d)) for d in (0, 1, 2, 4, 3)]
    asked = [Proposal(archs[i], images=n) for i, n in ((0, None), (1, 16), (2, None), (3, 7))]
    expected = Scores(net, task, by="loss")([p.arch for p in asked], [p.images for p in asked])
    assert list(pool.scored(asked)) == expected
    with pytest.raises(ArchError, match="wider than this network's weights"):
        list(pool.scored([asked[0], Proposal(Arch(lora=(512,) * 4))]))
    other = Pool(ray, lambda: kind.remote("0.1", 1, data, *tensors), 1)
    with pytest.raises(WorkersError, match=r"has PyTorch .*, this machine 0\.1: scores could diff"):
        list(other.scored(asked))


def test_the_last_proposals_go_to_whoever_is_free_first(ray: Any) -> None:
    pool = Pool(ray, lambda: ray.remote(num_cpus=0)(Sleeps).remote(), 2)
    pool.wait(silent)
    long, *short = [Proposal(Arch(), images=n) for n in (30, 1, 1, 1, 1)]
    slow, *others = list(pool.scored([*short[:2], long, *short[2:]]))[2:]
    assert slow not in others  # while one is at the long one, the other does what is left


def test_an_architecture_at_which_workers_end_again_and_again_is_named(
    ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noahnas.pool.DEATHS", 2)
    pool = Pool(ray, lambda: ray.remote(num_cpus=0)(Dies).remote(), 1)
    with pytest.raises(WorkersError, match=r"2 workers have ended, .* Arch\(lora=\[1, 1\]\)"):
        list(pool.scored([Proposal(Arch(lora=(1, 1)))]))


def test_what_is_packed_is_unpacked_bit_by_bit(searched: tuple[Supernet, Task]) -> None:
    net, task = searched
    again, images = unpacked(packed((net, task.data.val.images)))
    assert torch.equal(images, task.data.val.images)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    frozen = {name for name, p in again.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, p in net.named_parameters() if not p.requires_grad}


# --- what cannot be had ----------------------------------------------------------------------


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, error = invoke("search", "--workers", "2", "--out", str(tmp_path / "run"))
    assert (code, (tmp_path / "run").exists()) == (2, False)
    assert "pip install 'noahnas[ray]'" in error


def test_a_cluster_that_cannot_be_joined_is_named_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    done = begun("-m", "noahnas", "search", "--ray", "127.0.0.1:1", "--out", str(run))
    _, error = done.communicate(timeout=PATIENCE)
    assert (done.returncode, run.exists()) == (2, False)
    assert "error: Ray at 127.0.0.1:1 cannot be joined" in error
    assert "Traceback" not in error


def test_a_process_that_uses_ray_keeps_its_own(ray: Any) -> None:
    with (
        pytest.raises(NoahnasError, match=r"call ray\.shutdown\(\) first"),
        Workers(1)._connected(cuda=False),
    ):
        pass
    assert ray.is_initialized()
