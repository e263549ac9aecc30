"""A disk that is full, or read-only: told in one sentence, nothing half-written, and it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from noahnas import Space
from noahnas.errors import WriteError
from noahnas.files import read_sealed_json, write_atomic
from noahnas.strategy import Proposal
from noahnas.study import Study

from .processes import ran
from .test_kill import SIZES

SHORT = [*SIZES[:4], "--trials", "12", "--supernet-epochs", "6", "--retrain-epochs", "6"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"a file system of 4 MB cannot be mounted here: {e}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, but: int = 0) -> Path:
    """Leave so many bytes of the disk."""
    with (disk / "ballast").open("wb") as f:
        while True:
            try:
                os.write(f.fileno(), bytes(4096))
            except OSError:
                break
    os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - but)
    return disk / "ballast"


def test_a_full_disk_is_told_and_with_room_the_run_goes_on(small_disk: Path) -> None:
    run = small_disk / "run"
    ballast = fill(small_disk, but=20_000)  # run.json finds its place, a checkpoint does not
    done = ran("search", "--out", str(run), *SHORT)
    assert done.returncode == 2, done.stderr
    assert "supernet.ckpt cannot be written: No space left on device" in done.stderr
    assert f"noahnas search --resume {run}" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in run.iterdir()) == ["run.json", "run.lock"]
    ballast.unlink()
    done = ran("search", "--resume", str(run))
    assert done.returncode == 0, done.stderr
    assert read_sealed_json((run / "result.json").read_bytes())["evaluations"] == 12


def test_on_a_full_disk_no_file_is_half_written(small_disk: Path) -> None:
    """A file as it was before, and a journal with whole lines alone."""
    write_atomic(small_disk / "kept", b"as it was")
    space = Space.load("tiny").bind(blocks=4, width=48)
    Study.journal(small_disk / "study", space)
    fill(small_disk)
    for name, content in [("kept", bytes(9000)), ("new", bytes(9000))]:
        with pytest.raises(WriteError, match=f"{name} cannot be written: No space left"):
            write_atomic(small_disk / name, content)
    assert (small_disk / "kept").read_bytes() == b"as it was"
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "kept", "study"]
    journal = Study.journal(small_disk / "study", space)
    before = (small_disk / "study").read_bytes()
    proposal = Proposal(space.sample(np.random.default_rng(0))[0])

    def go_on() -> None:  # until the page that the file has is full
        for _ in range(100):
            journal.start(proposal, 0, 1, 1)

    with pytest.raises(WriteError, match="study cannot be written: No space left"):
        go_on()
    lines = (small_disk / "study").read_bytes()
    assert lines.startswith(before)
    assert lines.endswith(b"\n")
    (small_disk / "ballast").unlink()
    whole = lines.count(b"\n") - before.count(b"\n")
    assert len(Study.journal(small_disk / "study", space).entries()) == whole


def test_a_read_only_place_is_told_before_anything_is_trained(small_disk: Path) -> None:
    run = small_disk / "run"
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True, capture_output=True)
    done = ran("search", "--out", str(run), *SHORT)
    assert done.returncode == 2
    assert f"{run} cannot be used: Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
