"""Memory that runs out: the work is done again with half as many images at a time.

And memory that a finished run gives back before the next one in the same process.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch

from noahnas.errors import OutOfMemoryError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MAPPED = 2**25  # bytes of a block from which on it is mapped by itself, and unmapped when freed
HELD = 2**30  # bytes at the end of the heap that are kept
T = TypeVar("T")
TOLD = (
    "can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED",
    "could not create a primitive",  # oneDNN says no more
)  # fmt: skip
logger = logging.getLogger(__name__)


def memory() -> int:
    """Bytes that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def hold() -> None:
    """Keep freed pages for what comes next, as each step of a training needs the same memory again.

    glibc by itself gives the end of its heap back, and the system then clears every page anew: on
    a small backbone some percent of a step. `release` gives them back.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED)
        libc.mallopt(M_TRIM_THRESHOLD, HELD)


@contextmanager
def settled() -> Iterator[None]:
    """What is there now, modules and their functions most of all, `release` leaves alone meanwhile.

    There are a million such objects, and to look at them takes longer than a small training step;
    around runs that follow each other, also as a decorator. Inside another one it does nothing.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def release() -> None:
    """Give back to the system what nothing uses: supernets in reference cycles, freed pages.

    Without it a process that does one run after another grows: glibc keeps pages for later.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in TOLD)


def halving(work: Callable[[int], T], images: int, what: str) -> tuple[T, int]:
    """Do `work`, which takes the number of images at a time; half as many while memory runs out.

    `work` must leave nothing behind when it fails. Each halving is told as a warning.

    Args:
        work: what to do.
        images: how many at a time, at first.
        what: the work's name, in messages.

    Returns:
        What `work` returned, and the number of images with which it did.

    Raises:
        OutOfMemoryError: if memory runs out with one image at a time.
    """
    while True:
        try:
            return work(images), images
        except (MemoryError, RuntimeError) as e:
            if not ran_out(e):
                raise
            said = str(e).strip().partition("\n")[0] or "no memory left"
        # Out of the handler: the error no longer holds the tensors of the frames it came through.
        release()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if images <= 1:
            raise OutOfMemoryError(
                f"{what}: memory ran out with one image at a time ({said}); free some, or choose "
                "a smaller backbone or --precision bf16"
            )
        images //= 2
        logger.warning("%s: memory ran out; going on with %d images at a time", what, images)
