"""Where tensors are computed, and in which precision."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from noahnas.errors import NoahnasError, unknown

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "bf16")
PLAIN = ("AVX2", "DEFAULT", "NO AVX")  # of x86 without AVX-512: products in bf16 are plain loops

logger = logging.getLogger(__name__)


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


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`; warns where bf16 is the slower one.

    Raises:
        NoahnasError: if it is unknown, or the device does not have it.
    """
    if name not in PRECISIONS:
        raise NoahnasError(unknown("precision", name, PRECISIONS))
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise NoahnasError("this GPU has no bf16; use --precision fp32")
    if name == "bf16" and device.type == "cpu":
        _warn_where_slow()
    return name


@cache  # once is enough
def _warn_where_slow() -> None:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if x86 and torch.backends.cpu.get_cpu_capability() in PLAIN:
        logger.warning(
            "on this processor, which has no AVX-512, bf16 is slower than fp32; "
            "use --precision fp32"
        )


@contextmanager
def cast(model: nn.Module, precision: str) -> Iterator[None]:
    """A context in which a model's layers read weights that were reduced once, not at every call.

    For forwards under `autocast` alone: the weights themselves stay as they are.
    """
    with ExitStack() as stack:
        if precision != "fp32":
            for layer in model.modules():
                if type(layer) not in (nn.Linear, nn.Conv2d):
                    continue
                for name, value in layer.named_parameters(recurse=False):
                    vars(layer)[name] = value.to(torch.bfloat16)  # found before the parameter
                    stack.callback(vars(layer).pop, name)
        yield


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
