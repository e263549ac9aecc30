"""The loop keeps the budget, repeats nothing, and goes on as it was after any cut."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest

from noahnas import Arch, Space
from noahnas.errors import RunError, StrategyError
from noahnas.evaluate import Result
from noahnas.search import Outcome, search
from noahnas.strategy import Proposal, Strategy, make_strategy
from noahnas.study import Entry, Study

from .test_strategies import bound, score

TRIALS, BATCH = 23, 5


class Died(Exception):  # noqa: N818
    """Stands for a killed process."""


def run(
    path: Path, name: str = "evolution", die_at: int | None = None, space: Space | None = None
) -> Outcome:
    space = space or bound()
    count = 0

    def evaluate(proposal: Proposal) -> Result:
        nonlocal count
        count += 1
        if count == die_at:
            raise Died
        return score(space, proposal).result

    options = {"population": "8", "top": "3", "mutants": "3", "crossovers": "3"}
    strategy = make_strategy(name, space, 1, options if name == "evolution" else {})
    return search(
        strategy, partial(map, evaluate), Study.journal(path, space), trials=TRIALS, batch=BATCH
    )


def sequence(path: Path, space: Space | None = None) -> list[tuple[str, float]]:
    entries = Study.journal(path, space or bound()).entries()
    return [(e.proposal.arch.digest, e.result.accuracy) for e in entries if e.result]


@pytest.mark.parametrize("name", ["evolution", "random"])
@pytest.mark.parametrize("die_at", [1, 3, 5, 6, 11, 23])
def test_a_search_that_died_goes_on_with_the_same_sequence(
    tmp_path: Path, name: str, die_at: int
) -> None:
    whole = run(tmp_path / "whole", name)
    with pytest.raises(Died):
        run(tmp_path / "cut", name, die_at)
    resumed = run(tmp_path / "cut", name)
    assert sequence(tmp_path / "cut") == sequence(tmp_path / "whole")
    assert len(sequence(tmp_path / "cut")) == TRIALS
    assert (resumed.best, resumed.passes) == (whole.best, whole.passes)


def cut_lines(path: Path, keep: int, tail: bytes = b"") -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:keep]) + tail)


def test_a_journal_cut_at_any_write_goes_on_with_the_same_sequence(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    expected, size = (
        sequence(tmp_path / "whole"),
        len((tmp_path / "whole").read_bytes().splitlines()),
    )
    for keep in range(1, size, 4):
        path = tmp_path / f"cut{keep}"
        path.write_bytes((tmp_path / "whole").read_bytes())
        cut_lines(path, keep, tail=b'{"op_code": 4, "half a li')
        run(path)
        assert sequence(path) == expected, keep


def test_a_finished_search_is_not_repeated(tmp_path: Path) -> None:
    first = run(tmp_path / "s")
    assert run(tmp_path / "s", die_at=1) == first


def test_a_trial_is_on_disk_before_the_strategy_is_told(tmp_path: Path) -> None:
    space, path = bound(), tmp_path / "s"
    on_disk: list[int] = []

    class Watching(type(make_strategy("random", space, 0))):  # type: ignore[misc]
        def tell(self, trials: list) -> None:
            if trials:
                on_disk.append(len([e for e in reread(path) if e.result]))
            super().tell(trials)

    search(
        Watching(space, 0), partial(map, lambda p: score(space, p).result),
        Study.journal(path, space),
        trials=10, batch=5,
    )  # fmt: skip
    assert on_disk == [5, 10]


def reread(path: Path) -> list[Entry]:
    """What another process would see."""
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return Study(optuna.storages.JournalStorage(backend), bound()).entries()


class Fixed(Strategy):
    """Proposes what it is given, again and again."""

    archs: tuple[Arch, ...] = ()

    def ask(self, n: int) -> list[Proposal]:
        return [Proposal(arch) for arch in self.archs][:n]


def fixed(archs: tuple[Arch, ...], tmp_path: Path, evaluate: Callable | None = None) -> Outcome:
    space = bound()
    strategy = Fixed(space, 0)
    strategy.archs = archs
    evaluate = evaluate or (lambda p: score(space, p).result)
    return search(
        strategy, partial(map, evaluate), Study.journal(tmp_path / "s", space), trials=9, batch=2
    )


SMALL = Arch(lora=(1, 0, 0, 0), vpt=(1, 0, 0, 0), adapter=(1, 0, 0, 0))


def test_a_repeated_arch_is_scored_once_and_charged_once(tmp_path: Path) -> None:
    calls: list[Proposal] = []

    def evaluate(proposal: Proposal) -> Result:
        calls.append(proposal)
        return score(bound(), proposal).result

    outcome = fixed((SMALL, SMALL), tmp_path, evaluate)
    assert len(calls) == 1
    assert (outcome.evaluations, outcome.passes, outcome.exhausted) == (1, 1, True)


@pytest.mark.parametrize(
    ("archs", "message"),
    [
        ((), "proposed nothing"),
        ((bound().largest,), "exceeds the budget"),
        ((Arch(lora=(3, 0, 0, 0)),), "outside the space"),
    ],
)
def test_a_strategy_that_misbehaves_is_named(
    tmp_path: Path, archs: tuple[Arch, ...], message: str
) -> None:
    with pytest.raises(StrategyError, match=f"Fixed.*{message}"):
        fixed(archs, tmp_path)


def test_ties_in_accuracy_are_broken_by_loss(tmp_path: Path) -> None:
    other = Arch(lora=(2, 0, 0, 0), vpt=(1, 0, 0, 0), adapter=(1, 0, 0, 0))
    losses = {SMALL: 2.0, other: 1.0}

    def evaluate(p: Proposal) -> Result:
        return Result(0.5, 0.5, losses[p.arch], 1, 1, "val")

    assert fixed((SMALL, other), tmp_path, evaluate).best.arch == other


def test_optuna_reads_the_study_as_its_own(tmp_path: Path) -> None:
    run(tmp_path / "s")
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "s"))
    )
    study = optuna.load_study(study_name="search", storage=storage)
    assert len(study.trials) == TRIALS
    assert study.best_value == max(score_ for _, score_ in sequence(tmp_path / "s"))
    assert {"lora.depth", "vpt.dim.0"} <= set(study.best_params)
    assert json.dumps(study.best_trial.user_attrs)


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "s")
    lines = (tmp_path / "s").read_bytes().splitlines(keepends=True)
    lines[5] = b"garbage\n"
    (tmp_path / "s").write_bytes(b"".join(lines))
    with pytest.raises(RunError, match="damaged"):
        run(tmp_path / "s")


def test_a_trial_is_synced_to_the_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), fsync(fd)))
    run(tmp_path / "s", "random")
    assert len(synced) == TRIALS
    assert len(reread(tmp_path / "s")) == TRIALS
