"""Every file of a run, cut short or with one bit flipped: found, named, never used; then mended."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from noahnas import Space
from noahnas.errors import NoahnasError
from noahnas.files import read_sealed_json, sealed, sealed_json, unsealed
from noahnas.inputs import Inputs
from noahnas.pipeline import resume, start
from noahnas.progress import Progress
from noahnas.recipe import Recipe, Stage
from noahnas.study import Study

from .conftest import invoke

STAGE = Stage(epochs=2, lr=4e-3, batch_size=64)
DONE = ("supernet", "spread", "search", "retrain")


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """Without what a clock measured."""
    return {key: value for key, value in result.items() if key != "cost"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run with the checkpoints of its trainings kept; tests take copies of it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    kept = run.parent / "kept"

    def report(progress: Progress) -> None:
        if progress.stage in ("supernet", "retrain") and progress.done == 1:
            kept.mkdir(exist_ok=True)
            shutil.copy(run / f"{progress.stage}.ckpt", kept)

    recipe = Recipe("quick", "for tests", STAGE, "paper", trials=6, batch=3, retrain=STAGE)
    inputs = Inputs("digits", "vit-digits", recipe, 3, space=Space.load("tiny"),
                    strategy="evolution", probe=False)  # fmt: skip
    result = start(run, inputs, report)
    for checkpoint in kept.iterdir():
        shutil.copy(checkpoint, run)
    return run, plain(result)


def at(whole: Path, to: Path, before: str) -> Path:
    """A copy of the run as it was before a stage was finished."""
    run = Path(shutil.copytree(whole, to))
    (run / "result.json").unlink()
    stages = read_sealed_json((run / "stages.json").read_bytes())
    kept = {name: stages[name] for name in DONE[: DONE.index(before)]}
    (run / "stages.json").write_bytes(sealed_json(kept))
    return run


def damaged(content: bytes, how: str) -> bytes:
    if how == "cut":
        return content[: len(content) // 2]
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("how", ["cut", "flipped"])
@pytest.mark.parametrize(
    ("file", "before"),
    [
        ("run.json", "retrain"),
        ("stages.json", "retrain"),
        ("supernet.ckpt", "supernet"),
        ("supernet.safetensors", "search"),
        ("study.journal", "search"),
        ("retrain.ckpt", "retrain"),
    ],
)
def test_a_damaged_file_is_named_and_removed_it_is_made_anew(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, file: str, before: str, how: str
) -> None:
    run = at(whole[0], tmp_path / "run", before)
    content = (run / file).read_bytes()
    if file == "study.journal" and how == "cut":  # half a line at the end is mended: see below
        (run / file).write_bytes(content.replace(b"\n", b"", 3))
    else:
        (run / file).write_bytes(damaged(content, how))
    with pytest.raises(NoahnasError, match=rf"{file}\S* is damaged"):
        resume(run)
    if file == "run.json":
        shutil.copy(whole[0] / file, run)
    else:
        (run / file).unlink()
    assert plain(resume(run)) == whole[1]


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_result_is_refused_and_made_anew(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, how: str
) -> None:
    run = Path(shutil.copytree(whole[0], tmp_path / "run"))
    for file in ("best.safetensors", "result.json"):
        (run / file).write_bytes(damaged((run / file).read_bytes(), how))
        code, _, error = invoke("predict", str(run), str(run / "none.png"))
        assert (code, f"{file} is damaged" in error) == (2, True), error
        (run / file).unlink()
        assert plain(resume(run)) == whole[1]
    (run / "best.yaml").write_bytes(damaged((run / "best.yaml").read_bytes(), how))
    code, _, error = invoke(
        "retrain", str(run), "--retrain-epochs", "1", "--out", str(tmp_path / "again")
    )
    assert code == 0, error
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert again["digest"] == whole[1]["digest"]


def test_no_byte_of_a_journal_changes_unnoticed(whole: tuple[Path, dict[str, Any]]) -> None:
    content = (whole[0] / "study.journal").read_bytes()
    space, copy = Space.load("tiny").bind(blocks=4, width=48), whole[0].parent / "copy.journal"
    keys = [found.start() for found in re.finditer(b'"sha256"', content)]
    for place in range(0, len(content) - 1, 41):
        if any(key <= place < key + 8 for key in keys):
            continue  # what other programs write has no digest
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        copy.write_bytes(changed)
        with pytest.raises(NoahnasError, match="damaged"):
            Study.journal(copy, space)


def test_half_a_line_that_a_kill_left_is_removed_and_its_trial_done_again(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run = at(whole[0], tmp_path / "run", "search")
    content = (run / "study.journal").read_bytes()
    (run / "study.journal").write_bytes(content[:-30])
    assert plain(resume(run)) == whole[1]


def test_what_was_sealed_is_read_back_and_anything_else_is_refused() -> None:
    value = {"a": 1.5, "b": {"2": [None, "ü"]}}
    assert read_sealed_json(sealed_json(value)) == value
    assert read_sealed_json(sealed_json(value | {"sha256": "another"})) == value
    assert unsealed(sealed(b"x\ny")) == b"x\ny"
    for content in (b"{}", b"[]", b'{"a": 1, "sha256": "0"}', b"", b"\xff"):
        with pytest.raises(ValueError):
            read_sealed_json(content)
        with pytest.raises(ValueError):
            unsealed(content)
