"""Strangers' files and arguments: no traceback, no hang, no file outside of the run.

More of the same cases, by the thousand: `python benchmarks/fuzz.py`.
"""

from __future__ import annotations

import time

import pytest

from .hostile import KINDS, Sandbox

SECONDS = 5.0  # of each kind
# timm leaves a file open whose weights do not fit
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


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


def test_the_fuzzer_sees_a_traceback(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noahnas.registry.installed", {}.__getitem__)
    monkeypatch.setitem(KINDS, "odd", lambda rng, box: ["plugins"])
    assert "traceback: KeyError" in box.case("odd", 0).fault


def test_the_fuzzer_sees_a_file_elsewhere_and_a_hang(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = ["data", "check", str(box.data), "--backbone", "vit-digits"]
    sheet = box.victim / "sheet.png"
    monkeypatch.setitem(KINDS, "odd", lambda rng, box: [*look, "--sheet", str(sheet)])
    assert "outside of the run" in box.case("odd", 0).fault
    sheet.unlink()
    monkeypatch.setattr("tests.hostile.LIMIT", 0.01)
    monkeypatch.setitem(KINDS, "odd", lambda rng, box: ["data", "check", "digits"])
    assert "no end within" in box.case("odd", 0).fault
