"""Scores, and whole runs of a sweep, by several processes here or on a cluster, which Ray runs.

Each worker holds the network, the validation images and its own `Scores`. Weights and images are
put into Ray's object store once; the workers of a machine read them where they lie there. An
architecture goes to whichever worker is free, and results come back in the order in which they
were asked for. On a CPU a score does not depend on what else a process has scored, so they are
those of one process, bit for bit where a worker has as many threads.

Ray is imported where there are workers alone.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch

from noahnas.data import Dataset, Split, Task
from noahnas.errors import NoahnasError, WorkersError
from noahnas.pool import DEATHS, Pool, Worker, packed, reason
from noahnas.progress import Report, silent
from noahnas.search import Evaluate
from noahnas.supernet import Supernet

ANSWER = 10.0  # seconds for a cluster to answer
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of what it will do in future
}


@dataclass(frozen=True)
class Job:
    """A part of a sweep, which one worker does."""

    name: str
    work: Callable[[], tuple[Any, ...]]  # a function and its arguments, asked for when it is ready
    needs: tuple[str, ...] = ()  # names of jobs that must have ended


Ended = Callable[[Job, Any], None]


@dataclass(frozen=True)
class Workers:
    """Who scores: so many processes of Ray, here or on a cluster."""

    count: int | None = None  # None = as many as the cluster has CPUs, or GPUs
    address: str | None = None  # of a cluster, HOST:PORT; None = Ray is started here, for a while

    def check(self, device: str) -> None:
        """Find what would fail later on, before anything is trained.

        Args:
            device: auto, cpu or cuda.

        Raises:
            WorkersError: if Ray is not installed, or the cluster cannot be joined or is too small.
        """
        _ray()
        if self.address:
            cuda = _on_gpu(device)
            with self._connected(cuda) as ray:
                self._size(ray, cuda)

    @contextmanager
    def scoring(
        self, net: Supernet, task: Task, by: str = "accuracy", report: Report = silent
    ) -> Iterator[Evaluate]:
        """What scores proposals on the validation split, as long as the context is open.

        Args:
            net: the weights, which stay as they are meanwhile.
            task: data, device and precision.
            by: what results are ranked by, accuracy or loss.
            report: called while workers are waited for.

        Raises:
            WorkersError: if Ray cannot be had, or an architecture ends worker after worker.
            NoahnasError: of the kind that scoring in this process would raise.
        """
        cuda = task.device.type == "cuda"
        with self._connected(cuda) as ray:
            count = self._size(ray, cuda)
            share = _share(ray, count) if cuda else 0
            threads = max(1, torch.get_num_threads() // count)
            data, tensors = packed((net, _val_alone(task), by))
            about = [ray.put(data), *(ray.put(tensor) for tensor in tensors)]
            kind = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0)(Worker)
            pool = Pool(ray, lambda: kind.remote(torch.__version__, threads, *about), count)
            pool.wait(report)
            yield pool.scored

    def sweep(self, device: str, jobs: Sequence[Job], ended: Ended) -> None:
        """Do jobs in workers, each as soon as those that it needs have ended.

        A job whose worker is killed is begun again, so it must go on where it was.

        Args:
            device: auto, cpu or cuda.
            jobs: those that a job needs stand before it, or are none of them.
            ended: called here with a job and what its function returned, or its error.

        Raises:
            WorkersError: if Ray cannot be had, or a job ends worker after worker.
        """
        cuda = _on_gpu(device)
        with self._connected(cuda) as ray:
            count = self._size(ray, cuda)
            share = _share(ray, count) if cuda else 0
            work = ray.remote(num_cpus=1, num_gpus=share, max_retries=DEATHS - 1)(_done)
            waiting, done, busy = list(jobs), set[str](), dict[Any, Job]()
            names = {job.name for job in jobs}
            while waiting or busy:
                ready = [job for job in waiting if done.issuperset({*job.needs} & names)]
                for job in ready[: count - len(busy)]:
                    waiting.remove(job)
                    busy[work.remote(*job.work())] = job
                (call,), _ = ray.wait([*busy], num_returns=1)
                job = busy.pop(call)
                try:
                    found = ray.get(call)
                except ray.exceptions.RayTaskError:
                    raise  # a fault of the program
                except ray.exceptions.RayError as e:
                    raise WorkersError(
                        f"{DEATHS} workers have ended, one after the other, at {job.name}: "
                        f"{reason(e)}"
                    ) from e
                ended(job, found)
                done.add(job.name)

    def _size(self, ray: Any, cuda: bool) -> int:
        what = "GPU" if cuda else "CPU"
        there = int(ray.cluster_resources().get(what, 0))
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cuda and not there:
            raise WorkersError(f"the cluster at {self.address} has no GPU; use --device cpu")
        count = self.count or max(1, min(there, cpus))
        if count > cpus:
            raise WorkersError(
                f"{count} workers are asked for, the cluster at {self.address} has {cpus} CPUs; "
                f"use --workers {cpus}, or start Ray on more machines"
            )
        return count

    @contextmanager
    def _connected(self, cuda: bool) -> Iterator[Any]:
        """Ray, started here or joined; when the context closes, it is left, and none of it runs."""
        ray = _ray()
        if ray.is_initialized():
            raise WorkersError("this process uses Ray already; call ray.shutdown() first")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        folder = None if self.address else tempfile.mkdtemp(prefix="noahnas-ray-")
        try:
            with _undisturbed():
                try:
                    if self.address:
                        _reach(self.address)
                        ray.init(self.address, **quiet)
                    else:
                        ray.init(
                            "local",
                            num_cpus=self.count or 1,
                            num_gpus=torch.cuda.device_count() if cuda else 0,
                            include_dashboard=False,
                            _temp_dir=folder,
                            **quiet,
                        )
                except Exception as e:  # of many kinds, which Ray does not name
                    what = f"at {self.address} cannot be joined" if self.address else "cannot start"
                    told = str(e).strip().splitlines() or [type(e).__name__]
                    raise WorkersError(f"Ray {what}: {told[0][:300]}") from e
            yield ray
        finally:
            with _undisturbed():
                ray.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


def _reach(address: str) -> None:
    """Raise OSError if nobody answers at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()


def _ray() -> Any:
    for name, value in QUIET.items():  # Ray reads some of them when it is imported
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as e:
        raise WorkersError(
            f"--workers and --ray need Ray, which cannot be imported ({e}): "
            "pip install 'noahnas[ray]'"
        ) from None
    return ray


def _on_gpu(device: str) -> bool:
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _share(ray: Any, count: int) -> float:
    """Of a GPU, for each of so many workers."""
    gpus: float = ray.cluster_resources()["GPU"]
    return 1 / math.ceil(count / gpus)


def _done(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns; an error of ours is a value, as in `Worker.score`."""
    try:
        return function(*args)
    except NoahnasError as e:
        return e


def _val_alone(task: Task) -> Task:
    """The task without the images that no search looks at."""
    data = task.data
    val = Split(data.val.images.clone(), data.val.labels.clone())  # not what lies beside them
    return replace(
        task, data=Dataset(data.name, data.classes, val, val, val, data.notes, absent_ok=True)
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until Ray has started or ended, as processes would be left in between.

    Ray puts handlers of its own in place of the command's; these are put back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
