"""Progress on stderr: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from noahnas.printable import printable
from noahnas.progress import Progress
from noahnas.report.console import Console

EVERY = 10.0  # seconds between lines where there is no terminal


class ProgressView:
    """A context manager whose `update` shows how far each stage has come, with time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told = time.monotonic()
        self._begun: dict[str, tuple[float, int]] = {}  # of each stage: when, and at which step

    def __enter__(self) -> ProgressView:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Show one step of a stage."""
        if not self._console.is_terminal:
            self._line(progress)
            return
        note = printable(progress.note)
        if progress.stage not in self._tasks:
            task = self._bars.add_task(printable(progress.stage), total=progress.total, note=note)
            self._tasks[progress.stage] = task
        self._bars.update(
            self._tasks[progress.stage],
            completed=progress.done,
            note=note,
        )

    def _line(self, progress: Progress) -> None:
        now = time.monotonic()
        since, step = self._begun.setdefault(progress.stage, (now, progress.done))
        if progress.done == progress.total or now - self._told > EVERY:
            self._told = now
            done = f"{progress.done}/{progress.total}"
            steps = progress.done - step
            left = (now - since) / steps * (progress.total - progress.done) if steps else 0.0
            note = progress.note + (f" · {left:.0f} s left" if left else "")
            self._console.print(f"{progress.stage} {done} · {note}", highlight=False)
