"""Scores, and whole runs of a sweep, by several processes here or on a cluster, which Ray runs.

Each worker holds the network, the validation images and its own `Scores`. Weights and images are
put into Ray's object store once; the workers of a machine read them where they lie there. An
architecture goes to whichever worker is free, and results come back in the order in which they
were asked for. On a CPU a score does not depend on what else a process has scored, so they are
those of one process, bit for bit where a worker has as many threads.

Ray is imported where there are workers alone.
"""

from __future__ import annotations

import io
import logging
import math
import os
import pickle
import platform
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noahnas.data import Dataset, Split, Task
from noahnas.errors import NoahnasError, WorkersError
from noahnas.evaluate import Result, Scores
from noahnas.memory import hold
from noahnas.progress import Progress, Report, silent
from noahnas.search import Evaluate
from noahnas.strategy import Proposal
from noahnas.supernet import Supernet

ANSWER = 10.0  # seconds for a cluster to answer
LOOK = 1.0  # seconds between two looks at whether workers have begun
HELD = 2  # proposals of a worker at a time: the one that it is at, and the next
DEATHS = 5  # of workers by one architecture, after which the search ends
SHARED = 2**16  # bytes of a tensor from which on workers of a machine read the same memory
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of what it will do in future
}
Packed = tuple[bytes, list[NDArray[np.uint8]]]  # a pickle, and the large tensors beside it


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
            kind = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0)(_Worker)
            pool = _Pool(ray, lambda: kind.remote(torch.__version__, threads, *about), count)
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
                        f"{_reason(e)}"
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
    """What a function returns; an error of ours is a value, as in `_Worker.score`."""
    try:
        return function(*args)
    except NoahnasError as e:
        return e


class _Worker:
    """What runs in a process of Ray's."""

    def __init__(
        self, version: str, threads: int, data: bytes, *tensors: NDArray[np.uint8]
    ) -> None:
        self._fault = ""
        if torch.__version__ != version:
            here = platform.node()
            self._fault = (
                f"{here} has PyTorch {torch.__version__}, this machine {version}: "
                "scores could differ; install the same on all machines of the cluster"
            )
            return
        torch.set_num_threads(threads)
        hold()  # as in a process that has trained: workers would clear pages at the same time
        net, task, by = unpacked((data, list(tensors)))
        self._scores = Scores(net.to(task.device), task, by=by)

    def ready(self) -> bool:
        """Whether this worker can score."""
        return not self._fault

    def score(self, proposal: Proposal) -> Result | NoahnasError:
        """An error of ours is a value: Ray would wrap it in one of its own, with a traceback."""
        if self._fault:
            return WorkersError(self._fault)
        try:
            return self._scores([proposal.arch], [proposal.images])[0]
        except NoahnasError as e:
            return e


class _Pool:
    """Workers, each with its own proposals; one that dies is replaced."""

    def __init__(self, ray: Any, begin: Any, count: int) -> None:
        self._ray, self._begin = ray, begin
        self.workers = [begin() for _ in range(count)]

    def wait(self, report: Report) -> None:
        """Return once all have begun, or ended, so that no result is charged for that.

        On a cluster that others use they may have to wait for free CPUs, or for machines.
        """
        calls = [worker.ready.remote() for worker in self.workers]
        left = calls
        while left:
            report(Progress("workers", len(calls) - len(left), len(calls), "begun"))
            left = self._ray.wait(left, num_returns=len(left), timeout=LOOK)[1]

    def scored(self, proposals: Sequence[Proposal]) -> Iterator[Result]:
        """Results in the order of the proposals, each as soon as it is there.

        A worker is given its next proposal before it has done with one, so that it never waits;
        but the last ones wait for whoever is free first, so that none is left to do two alone.
        """
        ray = self._ray
        waiting, busy = deque(range(len(proposals))), dict[Any, tuple[int, int]]()
        found: dict[int, Result | NoahnasError] = {}
        deaths = Counter[int]()

        def give() -> None:
            """Give each worker as many as it may hold, one after the other."""
            held = Counter(worker for _, worker in busy.values())
            for at_most in range(1, HELD + 1):
                kept = 0 if at_most == 1 else len(self.workers)
                for worker in range(len(self.workers)):
                    if len(waiting) > kept and held[worker] < at_most:
                        which = waiting.popleft()
                        call = self.workers[worker].score.remote(proposals[which])
                        busy[call] = which, worker
                        held[worker] += 1

        def bury(dead: int, error: Exception) -> None:
            """Replace a worker; what it held is asked again, what it was at is to blame."""
            calls = [call for call, (_, worker) in busy.items() if worker == dead]
            held = [busy.pop(call)[0] for call in calls]
            deaths[held[0]] += 1
            if deaths[held[0]] == DEATHS:
                raise WorkersError(
                    f"{DEATHS} workers have ended, one after the other, at "
                    f"{proposals[held[0]].arch!r}: {_reason(error)}"
                ) from error
            with suppress(ray.exceptions.RayError):
                ray.kill(self.workers[dead])
            self.workers[dead] = self._begin()
            waiting.extendleft(reversed(held))

        for which in range(len(proposals)):
            give()
            while which not in found:
                call = ray.wait([*busy], num_returns=1)[0][0]
                try:
                    found[busy[call][0]] = ray.get(call)
                    del busy[call]
                except ray.exceptions.RayTaskError:
                    raise  # a fault of the program
                except ray.exceptions.RayError as e:
                    bury(busy[call][1], e)
                give()
            result = found.pop(which)
            if isinstance(result, NoahnasError):
                raise result
            yield result


def _reason(error: Exception) -> str:
    """The line of Ray's account that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line or "died" in line] or lines
    return told[-1][:300] if told else type(error).__name__


def _val_alone(task: Task) -> Task:
    """The task without the images that no search looks at."""
    data = task.data
    val = Split(data.val.images.clone(), data.val.labels.clone())  # not what lies beside them
    return replace(
        task, data=Dataset(data.name, data.classes, val, val, val, data.notes, absent_ok=True)
    )


def packed(value: Any) -> Packed:
    """A value's pickle, its large tensors beside it as bytes, all of them on the CPU."""
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(value)
    return file.getvalue(), [np.frombuffer(b.raw(), np.uint8) for b in buffers]


def unpacked(parts: Packed) -> Any:
    """The inverse of `packed`: large tensors stay where they lie, and must not be written to."""
    data, tensors = parts
    return pickle.loads(data, buffers=tensors)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        kind = value.dtype, tuple(value.shape), isinstance(value, nn.Parameter), value.requires_grad
        plain = value.detach().cpu().contiguous()
        array: Any = plain.reshape(-1).view(torch.uint8).numpy()  # (bytes), memory of the tensor's
        return _tensor, (array if array.nbytes >= SHARED else array.tobytes(), *kind)


def _tensor(
    held: NDArray[np.uint8] | bytes,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    parameter: bool,
    requires_grad: bool,
) -> Tensor:
    array = np.frombuffer(bytearray(held), np.uint8) if isinstance(held, bytes) else held
    with warnings.catch_warnings():  # evaluation writes to no weight and no image
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        flat = torch.from_numpy(array)  # (bytes)
    values = flat.view(dtype).reshape(shape)
    return nn.Parameter(values, requires_grad) if parameter else values


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
