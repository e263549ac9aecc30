"""Processes that train together, each on a device of its own: who they are, and what they sum.

Rank 0 leads: it alone searches, evaluates, writes and prints. The others take their share of each
batch. Lightning Fabric connects them; it is imported where there are several alone.
"""

from __future__ import annotations

import logging
import os
import pickle
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from noahnas.errors import NoahnasError, RanksError

PATIENCE = timedelta(days=7)  # the others wait for as long as rank 0 searches
TOGETHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
FOLLOWER = "from noahnas.follow import main; main()"
READY = b"ready\n"  # what a process that rank 0 began says before it connects
BEGIN = 300.0  # seconds in which it must say so
GONE = 10.0  # seconds in which a process that was told to end does so by itself


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, as one of them sees them."""

    rank: int = 0
    size: int = 1
    local: int = 1  # of them on this machine
    fabric: Any = field(default=None, repr=False, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def share(self, value: Any = None) -> Any:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        with _lost():
            return self.fabric.broadcast(value)

    def part(self, offset: int = 0) -> slice:
        """Which images are this rank's, dealt in turn from rank `offset` on."""
        return slice((self.rank - offset) % self.size, None, self.size)

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Each flag: whether it is set on any rank."""
        if self.size == 1:
            return list(flags)
        told = torch.tensor(flags, dtype=torch.float32)  # (n), on the CPU
        return [value > 0 for value in self._sum(told).tolist()]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in the same shape."""
        return values if self.size == 1 else self._sum(values)

    def sum_gradients(self, weights: Sequence[Tensor], used: Sequence[bool]) -> None:
        """Give each weight the sum of its gradients; those not `used` on any rank keep None.

        AdamW leaves a weight without gradient as it is, and decays one whose gradient is zero.
        """
        if self.size == 1:
            return
        kept = [w for w, some in zip(weights, used, strict=True) if some]
        if not kept:
            return
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in kept]
        total = self._sum(torch.cat([grad.reshape(-1) for grad in grads]))  # (all of them)
        pieces = total.split([w.numel() for w in kept])
        for weight, piece in zip(kept, pieces, strict=True):
            # As the weight lies in memory: AdamW's kernel for CPUs takes that for granted.
            weight.grad = torch.empty_like(weight).copy_(piece.view_as(weight))

    def _sum(self, values: Tensor) -> Tensor:
        with _lost():
            found: Tensor = self.fabric.all_reduce(values, reduce_op="sum")
        return found

    @contextmanager
    def cores_shared(self) -> Iterator[None]:
        """A context in which the processes of a machine share its threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, before // self.local))
        yield
        torch.set_num_threads(before)


ALONE = Ranks()


class OwnDraws:
    """PyTorch's random numbers, a rank's own in `with`; outside of it all ranks draw the same.

    A process alone has one row of numbers for both.
    """

    def __init__(self, ranks: Ranks, seed: int) -> None:
        """Seed both rows; to be called where PyTorch's generators may be changed."""
        self._apart = ranks.size > 1
        if self._apart:
            torch.manual_seed(seed ^ (ranks.rank + 1) << 40)  # of GPUs, too: all draw on the CPU
            self._own = torch.get_rng_state()
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def __enter__(self) -> None:
        if self._apart:
            self._common = torch.get_rng_state()
            torch.set_rng_state(self._own)

    def __exit__(self, *_: object) -> None:
        if self._apart:
            self._own = torch.get_rng_state()
            torch.set_rng_state(self._common)


@contextmanager
def _lost() -> Iterator[None]:
    """Tell the end of another process in one sentence."""
    try:
        yield
    except (RuntimeError, EOFError, pickle.UnpicklingError) as e:
        raise RanksError(
            "another process of this training has ended, so this one does, too; if it could say "
            f"why, it stands above ({str(e).strip().splitlines()[0][:120]})"
        ) from e


def asked(devices: int | None, nodes: int | None) -> tuple[int, int]:
    """How many processes a machine, and how many machines, from options and `torchrun`.

    Raises:
        NoahnasError: if what is asked for cannot be had here.
    """
    if all(name in os.environ for name in TOGETHER):
        size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        for option, given, found in (("devices", devices, local), ("nodes", nodes, size // local)):
            if given and given != found:
                raise NoahnasError(f"--{option} is {given}, but torchrun began {found}")
        return local, size // local
    if (nodes or 1) > 1:
        raise NoahnasError(
            "--nodes needs torchrun on each of them, such as: torchrun --nnodes 2 "
            "--nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m noahnas search …"
        )
    return devices or 1, 1


@contextmanager
def joined(devices: int | None, nodes: int | None, device: str) -> Iterator[Ranks]:
    """The processes that train together; those on this machine are begun unless `torchrun` has.

    Args:
        devices: how many on this machine; None = one, or what torchrun says.
        nodes: how many machines, or None.
        device: auto, cpu or cuda.

    Raises:
        NoahnasError: if what is asked for cannot be had here.
        RanksError: if a process cannot be reached.
    """
    local, machines = asked(devices, nodes)
    if local * machines == 1:
        yield ALONE
        return
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda and torch.cuda.device_count() < local:
        raise NoahnasError(
            f"{local} devices are asked for, {torch.cuda.device_count()} GPUs are here; "
            "use fewer, or --device cpu"
        )
    with ExitStack() as stack:
        if not all(name in os.environ for name in TOGETHER):
            stack.enter_context(_begun(local, "cuda" if cuda else "cpu"))
        ranks = _connected(local, machines, cuda)
        stack.callback(_disconnect)
        yield ranks


def _connected(local: int, machines: int, cuda: bool) -> Ranks:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise NoahnasError(
            "several devices need Lightning Fabric: pip install pytorch-lightning"
        ) from None
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # it tells each process that it has begun
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(),
        process_group_backend="cpu:gloo,cuda:nccl" if cuda else "gloo",
        timeout=PATIENCE,
    )
    with _lost():
        fabric = Fabric(
            accelerator="cuda" if cuda else "cpu",
            devices=local, num_nodes=machines, strategy=strategy,
        )  # fmt: skip
        fabric.launch()
    return Ranks(fabric.global_rank, fabric.world_size, local, fabric)


def _disconnect() -> None:
    if torch.distributed.is_initialized():
        with suppress(RuntimeError):
            torch.distributed.destroy_process_group()


@contextmanager
def _begun(count: int, device: str) -> Iterator[None]:
    """The other processes of this machine, begun; when this one leaves, none is left.

    They are out of reach of a terminal's Ctrl-C: rank 0 heeds it for all.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = _variables(0, count, port)
    command = [sys.executable, "-c", FOLLOWER, device]
    others: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, count):
            env = os.environ | _variables(rank, count, port)
            others.append(subprocess.Popen(
                command, env=env, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            ))  # fmt: skip
        _ready(others)
        os.environ.update(own)
        yield
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(GONE)
    finally:
        for name in own:
            os.environ.pop(name, None)
        for other in others:
            other.kill()
            other.wait()
            if other.stdout:
                other.stdout.close()


def _ready(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all are about to connect: who connects waits for the others without end.

    Raises:
        RanksError: if one ends before, or takes too long.
    """
    until = time.monotonic() + BEGIN
    with selectors.DefaultSelector() as waiting:
        for other in others:
            assert other.stdout is not None  # as it is a pipe
            waiting.register(other.stdout, selectors.EVENT_READ, other)
        while waiting.get_map():
            for key, _ in waiting.select(max(0.0, until - time.monotonic())):
                if os.read(key.fd, len(READY)) != READY:
                    code = key.data.wait()
                    raise RanksError(
                        f"a process of this training ended before it could begin (exit code "
                        f"{code}); if it could say why, it stands above"
                    )
                waiting.unregister(key.fileobj)
            if waiting.get_map() and time.monotonic() >= until:
                raise RanksError(
                    f"{len(waiting.get_map())} processes of this training did not begin within "
                    f"{BEGIN:.0f} seconds; is the machine busy with something else?"
                )


def _variables(rank: int, count: int, port: int) -> Mapping[str, str]:
    """The environment that torchrun would give."""
    values = (rank, count, rank, count, "127.0.0.1", port)
    more = {"GROUP_RANK": "0"}
    return dict(zip(TOGETHER, map(str, values), strict=True)) | more
