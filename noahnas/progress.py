"""Progress: how far long work has come; whoever works tells it to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a stage has come."""

    stage: str  # "images", "supernet", "search", "epochs-16", "retrain"
    done: int  # images, epochs or trials
    total: int
    note: str  # "loss 0.52"


Report = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Show nothing."""
