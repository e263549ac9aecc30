"""Rows of a protocol's table: the search, and the baselines it is compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from noahnas.errors import NoahnasError
from noahnas.recipe import Protocol
from noahnas.space import Arch

ROW = re.compile(r"(?P<kind>linear|full|noah|vpt-deep|adapter|lora)(-(?P<dim>[1-9]\d*))?")
MODULES = {"vpt-deep": "vpt", "adapter": "adapter", "lora": "lora"}
DEFAULT = ("linear", "full", "vpt-deep", "adapter-8", "lora-8", "noah")


@dataclass(frozen=True)
class Row:
    """What one column of the table trains."""

    name: str  # as given: "adapter-8"
    kind: str  # linear, full, vpt-deep, adapter, lora or noah; in micro-VTAB others as well
    dim: int = 0  # of the module in every block
    recipe: str = ""  # label of another recipe than the table's

    @property
    def searched(self) -> bool:
        """Whether its architecture is searched."""
        return self.kind in ("noah", "random")

    def arch(self, blocks: int) -> Arch:
        """The architecture of a baseline; linear and full have no prompt module."""
        module = MODULES.get(self.kind)
        return Arch(**{module: (self.dim,) * blocks}) if module else Arch()


def parse_row(name: str, protocol: Protocol) -> Row:
    """A row by name: noah, linear, full, vpt-deep[-TOKENS], adapter-DIM or lora-DIM.

    Raises:
        NoahnasError: if it is none of them, or the recipe does not say how to train it.
    """
    match = ROW.fullmatch(name)
    kind = match["kind"] if match else ""
    sized = bool(match and match["dim"])
    if not match or (sized and kind not in MODULES) or (not sized and kind in ("adapter", "lora")):
        known = "linear, full, vpt-deep, vpt-deep-TOKENS, adapter-DIM, lora-DIM, noah"
        raise NoahnasError(f"unknown row '{name}' (known: {known})")
    if kind != "noah" and kind not in protocol.rows:
        raise NoahnasError(f"the recipe has no protocol.rows.{kind}, which the row '{name}' needs")
    return Row(name, kind, int(match["dim"]) if sized else protocol.tokens)
