"""How far a grid of runs has come, told while its parts report their own steps."""

from __future__ import annotations

from collections.abc import Mapping

from noahnas.progress import Progress, Report

UNIT = 1000  # passes in a step of the bar


class Grid:
    """The passes that are made of those that are to be made."""

    def __init__(self, report: Report, total: int, name: str = "compare") -> None:
        self._report = report
        self._total = total
        self._name = name
        self._made = 0

    def part(self, name: str, passes: Mapping[str, int]) -> Report:
        """A report for a part of the work, which tells the whole instead.

        Args:
            name: of the part.
            passes: of each of its stages, in their order; a stage that is not among them does not
                move the bar.
        """
        made = 0

        def told(step: Progress) -> None:
            nonlocal made
            if step.stage in passes:
                before = list(passes).index(step.stage)
                share = step.done / max(step.total, 1)
                made = sum(list(passes.values())[:before]) + round(share * passes[step.stage])
            note = f"{name} · {step.stage} {step.done}/{step.total} · {step.note}"
            total = max(1, self._total // UNIT)
            done = min((self._made + made) // UNIT, total)
            self._report(Progress(self._name, done, total, note))

        return told

    def done(self, passes: int) -> None:
        """A part that was counted as so many passes is done."""
        self._made += passes

    def rest(self, passes: int) -> None:
        """What is left turns out to be so many passes."""
        self._total = self._made + passes
