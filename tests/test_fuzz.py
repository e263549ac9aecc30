"""Strangers' files and arguments: no traceback, no hang, no file outside of the run.

More of the same cases, by the thousand: `python benchmarks/fuzz.py`.
"""

from __future__ import annotations

import time

import pytest

from .hostile import KINDS, Sandbox, seed_of

SECONDS = 5.0  # of each kind


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(tmp_path_factory.mktemp("fuzz") / "sandbox")


@pytest.mark.parametrize("kind", KINDS)
def test_no_case_ends_in_a_traceback_a_hang_or_a_file_elsewhere(kind: str, box: Sandbox) -> None:
    began, seed = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        outcome = box.case(kind, seed)
        assert not outcome.fault, outcome
        seed += 1
    assert seed > 1


def test_the_fuzzer_sees_what_should_not_be(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noahnas.space.load_space", lambda *_: {}["none"])
    monkeypatch.setattr("noahnas.space.Space.load", lambda *_: {}["none"])
    seeds = [seed for seed in range(40) if seed_of("recipe", seed)]
    outcomes = [box.case("space", seed) for seed in seeds[:3]]
    assert any("traceback" in outcome.fault for outcome in outcomes), outcomes
