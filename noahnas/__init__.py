"""Neural prompt search: the best small trainable parts for a frozen vision transformer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noahnas.errors import NoahnasError
    from noahnas.export import load
    from noahnas.space import Arch, Space
    from noahnas.supernet import Supernet

__version__ = "0.1.0"
__all__ = ["Arch", "NoahnasError", "Space", "Supernet", "__version__", "load"]

_HOME = {
    "Arch": "noahnas.space",
    "NoahnasError": "noahnas.errors",
    "Space": "noahnas.space",
    "Supernet": "noahnas.supernet",
    "load": "noahnas.export",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `noahnas --help` needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'noahnas' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
