"""How far a grid of runs has come, told while its parts report their own steps."""

from __future__ import annotations

from noahnas.progress import Progress, Report

UNIT = 1000  # passes in a step of the bar
# Stages whose steps are shares of a part.
STAGES = ("supernet", "noise floor", "search", "epochs", "retrain")


class Grid:
    """The passes that are made of those that are to be made."""

    def __init__(self, report: Report, total: int, name: str = "compare") -> None:
        self._report = report
        self._total = total
        self._name = name
        self._made = 0

    def part(self, name: str, passes: int) -> Report:
        """A report for a part of the work, of so many passes, which tells the whole instead."""

        def told(step: Progress) -> None:
            stage = step.stage.partition("-")[0]  # epochs-16 is one of the stage epochs
            share = step.done / max(step.total, 1) if stage in STAGES else 0.0
            made = self._made + round(share * passes)
            note = f"{name} · {step.stage} {step.done}/{step.total} · {step.note}"
            total = max(1, self._total // UNIT)
            self._report(Progress(self._name, min(made // UNIT, total), total, note))

        return told

    def done(self, passes: int) -> None:
        """A part that was counted as so many passes is done."""
        self._made += passes

    def rest(self, passes: int) -> None:
        """What is left turns out to be so many passes."""
        self._total = self._made + passes
