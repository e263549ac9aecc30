"""`noahnas data`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noahnas.report.sheet import CLASSES, MARGIN, PER_CLASS, TEXT

from .conftest import draw_images, invoke

SMALL = ["--backbone", "vit-digits"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*args: str) -> dict[str, Any]:
    code, out, err = invoke("data", "check", *args, *SMALL, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_data_alone_lists_every_source_with_what_it_gives(tmp_path: Path) -> None:
    rows = json.loads(invoke("data", "--json")[1])
    assert {"folder", "csv", "npz", "timm", "count", "digits"} <= {row["name"] for row in rows}
    assert all(row["summary"].endswith(".") for row in rows)
    assert "folder" in invoke("data")[1]


def test_check_tells_counts_digest_and_seconds_and_draws_a_sheet(tmp_path: Path) -> None:
    draw_images(tmp_path / "pets", ["cat", "dog"], 10)
    cold = check("pets")
    assert cold["images"] == {"train": 12, "val": 4, "test": 4}
    assert cold["classes"]["dog"] == {"train": 6, "val": 2, "test": 2}
    assert cold["decoded_now"]
    warm = check("pets")
    assert not warm["decoded_now"]
    assert warm["digest"] == cold["digest"]
    with Image.open(tmp_path / cold["contact_sheet"]) as sheet:
        assert sheet.size == (TEXT + PER_CLASS * (48 + MARGIN) + MARGIN, 2 * (48 + MARGIN) + MARGIN)
        first = sheet.crop((TEXT + MARGIN, MARGIN, TEXT + MARGIN + 48, MARGIN + 48))
        assert len(np.unique(np.asarray(first))) > 20  # a picture, not a blank
    table = invoke("data", "check", "pets", *SMALL, "--no-sheet")[1]
    assert "12 train · 4 val · 4 test" in table
    assert cold["digest"] in table
    assert "from the cache" in table
    assert "contact sheet" not in table


def test_a_sheet_shows_at_most_so_many_classes(tmp_path: Path) -> None:
    draw_images(tmp_path / "many", [f"{i:02}" for i in range(CLASSES + 3)], 3)
    found = check("many", "--sheet", "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == CLASSES * (48 + MARGIN) + MARGIN
    assert len(found["classes"]) == CLASSES + 3


def test_what_was_skipped_is_told(tmp_path: Path) -> None:
    draw_images(tmp_path / "pets", ["cat", "dog"], 10)
    (tmp_path / "pets" / "cat" / "000.png").write_bytes(b"no image")
    code, _, err = invoke("data", "check", "pets", *SMALL)
    assert code == 2
    assert err.endswith("leave them out with --on-error skip")
    found = check("pets", "--on-error", "skip")
    assert len(found["skipped"]) == 1
    table = invoke("data", "check", "pets", *SMALL, "--on-error", "skip")[1]
    assert "1 left out" in table


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nowhere"], "unknown data 'nowhere'"),
        (["pets", "--on-error", "ignore"], "unknown value of on-error 'ignore'"),
        (["notes.txt"], "notes.txt is a file; name its directory"),
        (["folder"], "name the directory: folder:DIR"),
        (["pets", "--sheet", "nowhere/sheet.png"], "sheet.png cannot be written: No such file"),
        (["pets", "--sheet", "notes.txt"], "a contact sheet is a .png file"),
        (["csv:absent.csv"], "absent.csv cannot be read: No such file"),
    ],
)
def test_a_mistake_ends_in_one_message_and_exit_2(
    tmp_path: Path, args: list[str], told: str
) -> None:
    draw_images(tmp_path / "pets", ["cat", "dog"], 4)
    (tmp_path / "notes.txt").write_text("no data")
    code, _, err = invoke("data", "check", *args, *SMALL)
    assert code == 2
    assert told in err


def test_a_search_records_what_it_left_out(tmp_path: Path) -> None:
    draw_images(tmp_path / "pets", ["cat", "dog"], 12)
    (tmp_path / "pets" / "cat" / "000.png").write_bytes(b"no image")
    quick = [*SMALL, "--trials", "2", "--supernet-epochs", "1", "--retrain-epochs", "1"]
    code, _, err = invoke("search", "--data", "pets", "--on-error", "skip", "--out", "run", *quick)
    assert code == 0, err
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["inputs"]["on_error"] == "skip"
    assert [Path(name).name for name in about["notes"]["skipped"]] == ["000.png (no image)"]


def test_an_interrupted_check_ends_with_130_and_keeps_nothing_half_decoded(tmp_path: Path) -> None:
    draw_images(tmp_path / "pets", ["cat", "dog"], 400)
    wake = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    argv = ["data", "check", "pets"]
    code = f"{wake}from noahnas.__main__ import main; sys.argv[1:] = {argv}; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={"NOAHNAS_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list((tmp_path / "cache").glob("images/.*")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert list((tmp_path / "cache" / "images").iterdir()) == []
