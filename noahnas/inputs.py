"""Inputs: all that a run depends on, as `run.json` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from noahnas.recipe import Recipe
from noahnas.space import Arch, Space, format_space, parse_space
from noahnas.storage import masked


@dataclass(frozen=True)
class Inputs:
    """All that a run depends on."""

    data: str  # source name or directory
    backbone: str  # embedded name, timm name, file, or NAME@FILE
    recipe: Recipe
    seed: int = 0
    split_seed: int = 0
    on_error: str = "stop"  # at an unreadable image: stop or skip
    device: str = "auto"
    precision: str = "fp32"  # of forwards (`noahnas.device`)
    threads: int | None = None  # of PyTorch on the CPU; None = `default_threads`
    space: Space | None = None  # of a search
    supernet: str | None = None  # of a search: another run, whose supernet is used
    strategy: str = ""  # of a search; "" = train the supernet alone
    options: Mapping[str, str] = field(default_factory=dict)  # of the strategy
    arch: Arch | None = None  # of a retraining alone
    full: bool = False  # of a retraining alone: train the backbone's weights, too
    held_out: bool = False  # of a retraining alone: train on train, score on val, never on test
    test_every: int = 0  # epochs of retraining; 0 = test once, at the end
    storage: str = ""  # URL of the study of a search; "" = a journal in the run directory
    study: str = ""  # its name there; "" = after what scores depend on
    patience: float = 60.0  # seconds without a sign of life of another process on the study
    probe: bool = True  # whether the linear probe is measured beside the winner

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as run.json holds them: without the storage's password."""
        plain: dict[str, Any] = {
            "data": self.data,
            "backbone": self.backbone,
            "recipe": self.recipe.to_dict(),
            "seed": self.seed,
            "split_seed": self.split_seed,
            "on_error": self.on_error,
            "device": self.device,
            "threads": self.threads,
            "full": self.full,
            "held_out": self.held_out,
            "test_every": self.test_every,
            "probe": self.probe,
        }
        if self.space:
            plain |= {
                "space": format_space(self.space),
                "supernet": self.supernet,
                "strategy": self.strategy,
                "options": dict(self.options),
            }
        if self.storage:
            plain |= {
                "storage": masked(self.storage),
                "study": self.study,
                "patience": self.patience,
            }
        return plain | ({"arch": self.arch.to_dict()} if self.arch else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inputs:
        """The inverse of `to_dict`."""
        given = dict(values) | {"recipe": Recipe.from_dict(values["recipe"])}
        if "space" in given:
            given["space"] = parse_space(given["space"], "run.json")
        if "arch" in given:
            given["arch"] = Arch.from_dict(given["arch"])
        return cls(**given)
