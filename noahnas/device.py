"""Where tensors are computed, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from noahnas.errors import NoahnasError, unknown

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; auto takes a GPU when there is one.

    Raises:
        NoahnasError: if the device is unknown or absent.
    """
    if name not in DEVICES:
        raise NoahnasError(unknown("device", name, DEVICES))
    if name == "cuda" and not torch.cuda.is_available():
        raise NoahnasError("no CUDA device here; use --device cpu or --device auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def default_precision(device: torch.device) -> str:
    """The precision used on a device: bf16 where it is faster (a GPU that has it), else fp32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp32"


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """A context in which a forward runs in a precision; weights stay as they are."""
    if precision == "fp32":
        yield
        return
    with torch.autocast(device.type, dtype=torch.bfloat16):
        if device.type == "cpu" and torch.is_grad_enabled():
            # On a CPU the fused attention's backward is 15 times slower in bf16 than in fp32.
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield
