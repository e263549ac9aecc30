"""Processes of Ray that score architectures, and what they are sent.

A worker holds the network, the validation images and its own `Scores`; a pool hands each its
proposals, and replaces one that dies.
"""

from __future__ import annotations

import io
import pickle
import platform
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noahnas.errors import NoahnasError, WorkersError
from noahnas.evaluate import Result, Scores
from noahnas.memory import hold
from noahnas.progress import Progress, Report
from noahnas.strategy import Proposal

HELD = 2  # proposals of a worker at a time: the one that it is at, and the next
SHARED = 2**16  # bytes of a tensor from which on workers of a machine read the same memory
DEATHS = 5  # of workers by one architecture, after which the search ends
Packed = tuple[bytes, list[NDArray[np.uint8]]]  # a pickle, and the large tensors beside it
LOOK = 1.0  # seconds between two looks at whether workers have begun


class Worker:
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


class Pool:
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
                    f"{proposals[held[0]].arch!r}: {reason(error)}"
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


def reason(error: Exception) -> str:
    """The line of Ray's account that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line or "died" in line] or lines
    return told[-1][:300] if told else type(error).__name__


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
