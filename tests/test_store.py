"""The store of decoded images: once, in order, on disk, and never a damaged one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from noahnas.data import Dataset, LoadOptions, load_data, merge
from noahnas.data.overlap import shared
from noahnas.errors import DataError
from noahnas.files import process_name
from noahnas.progress import Progress

from .conftest import draw_images

SIZE = (8, 8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOAHNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_images(tmp_path / "pets", ["cat", "dog"], 10)
    return tmp_path / "pets"


def load(folder: Path, on_error: str = "stop", size: tuple[int, int] = SIZE) -> Dataset:
    return load_data(str(folder), LoadOptions(size, on_error=on_error))


def test_a_second_start_reads_what_the_first_decoded(cache: Path, folder: Path) -> None:
    first, second = load(folder), load(folder)
    assert (first.notes.decoded, second.notes.decoded) == (True, False)
    assert second.digest == first.digest
    assert torch.equal(second.test.images, first.test.images)
    assert len(list(cache.iterdir())) == 1


def test_equal_names_in_two_places_are_two_sets_and_one_place_by_two_names_is_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, place in enumerate(("a", "b")):
        for name in ("cat", "dog"):
            (tmp_path / place / "imgs" / name).mkdir(parents=True)
            for i in range(4):
                rng = np.random.default_rng([seed, i, len(place), ord(name[0])])
                picture = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
                picture.save(tmp_path / place / "imgs" / name / f"{i}.bmp")  # all of one size
                os.utime(tmp_path / place / "imgs" / name / f"{i}.bmp", (0, 0))
    digests = []
    for place in ("a", "b"):
        monkeypatch.chdir(tmp_path / place)
        digests.append(load(Path("imgs")).digest)
        assert not load(tmp_path / place / "imgs").notes.decoded
    assert digests[0] != digests[1]


def test_images_keep_their_order_and_labels_whoever_decodes_first(
    cache: Path, folder: Path
) -> None:
    (folder / "cat" / "000.png").unlink()
    big = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(big).save(folder / "cat" / "000.png")  # slow, and first of its class
    data = load(folder)
    for split in (data.train, data.val, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            found = [path for path in folder.rglob("*.png") if torch.equal(image, pixels(path))]
            assert [path.parent.name for path in found] == [data.classes[label]]


def pixels(path: Path) -> torch.Tensor:
    image = Image.open(path).resize(SIZE, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_a_changed_image_another_size_or_split_is_decoded_anew(cache: Path, folder: Path) -> None:
    first = load(folder)
    assert load(folder, size=(6, 6)).notes.decoded
    assert load_data(str(folder), LoadOptions(SIZE, split_seed=1)).notes.decoded
    Image.new("RGB", (20, 20), "red").save(folder / "cat" / "000.png")
    changed = load(folder)
    assert changed.notes.decoded
    assert changed.digest != first.digest


@pytest.mark.parametrize("damage", ["flipped byte", "cut short", "no description", "foreign json"])
def test_a_damaged_store_is_found_named_and_decoded_anew(
    cache: Path, folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = load(folder)
    (kept,) = cache.iterdir()
    file = kept / "pixels.u8"
    match damage:
        case "flipped byte":
            content = bytearray(file.read_bytes())
            content[100] ^= 1
            file.write_bytes(content)
        case "cut short":
            os.truncate(file, 50)
        case "no description":
            (kept / "set.json").unlink()
        case "foreign json":
            (kept / "set.json").write_text("[1]")
    again = load(folder)
    assert again.notes.decoded
    assert again.digest == first.digest
    assert str(kept) in caplog.text
    assert not load(folder).notes.decoded


def test_train_and_val_merge_without_a_copy(cache: Path, folder: Path) -> None:
    data = load(folder)
    both = merge(data.train, data.val)
    assert both.images.data_ptr() == data.train.images.data_ptr()
    assert torch.equal(both.images, torch.cat([data.train.images, data.val.images]))
    assert torch.equal(both.labels, torch.cat([data.train.labels, data.val.labels]))
    apart = merge(data.train, data.test)
    assert torch.equal(apart.images, torch.cat([data.train.images, data.test.images]))


def test_unreadable_images_are_counted_and_left_out_when_asked(cache: Path, folder: Path) -> None:
    (folder / "dog" / "003.png").write_bytes(b"no image")
    (folder / "cat" / "004.png").write_bytes((folder / "cat" / "004.png").read_bytes()[:80])
    with pytest.raises(DataError, match=r"2 unreadable images: .*003\.png.*--on-error skip"):
        load(folder)
    assert not list(cache.iterdir())  # nothing half-decoded stays
    for decoded in (True, False):
        data = load(folder, "skip")
        assert data.notes.decoded is decoded
        assert sum(len(data.split(s)) for s in ("train", "val", "test")) == 18
        assert sorted(name.split("/")[-1].split()[0] for name in data.notes.skipped) == [
            "003.png",
            "004.png",
        ]


def test_a_class_whose_images_are_all_unreadable_is_a_fault_even_when_skipping(
    cache: Path, folder: Path
) -> None:
    draw_images(folder, ["eel"], 5)
    for path in (folder / "eel").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no train image of eel"):
        load(folder, "skip")


def test_a_picture_in_two_splits_is_a_fault_or_leaves_the_earlier_one(
    cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / "given"
    for seed, split in enumerate(("train", "val", "test")):
        draw_images(root / split, ["cat", "dog"], 6, seed)
    shutil.copy(root / "test" / "cat" / "001.png", root / "train" / "cat" / "copy.png")
    Image.open(root / "test" / "dog" / "002.png").save(root / "val" / "dog" / "same.bmp")
    with pytest.raises(DataError, match=r"2 pictures stand in two splits: .*copy\.png of train = "):
        load(root)
    data = load(root, "skip")
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [12, 12, 12]
    assert (data.notes.overlap, data.notes.kept) == (2, False)
    assert load(root, "skip").digest == data.digest
    test = {image.numpy().tobytes() for image in data.test.images}
    assert not any(image.numpy().tobytes() in test for image in merge(data.train, data.val).images)


def test_rows_in_two_splits_are_told_for_the_earlier_split() -> None:
    keys = {"train": [b"a", b"b", b"c", b"a"], "val": [b"c", b"d"], "test": [b"d", b"a"]}
    assert shared(keys) == {"val": [1], "train": [0, 2, 3]}


def test_progress_counts_images_up_to_all_of_them(cache: Path, folder: Path) -> None:
    told: list[Progress] = []
    load_data(str(folder), LoadOptions(SIZE, report=told.append))
    assert (told[-1].stage, told[-1].done, told[-1].total) == ("images", 20, 20)


def test_a_cache_that_cannot_be_written_names_the_variable(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOAHNAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="NOAHNAS_CACHE"):
        load(folder)


def test_a_set_larger_than_the_disk_is_refused_before_it_is_decoded(
    cache: Path, folder: Path
) -> None:
    with pytest.raises(DataError, match=r"GB needed, .* GB free"):
        load(folder, size=(10**6, 10**6))


LARGE = """
import sys, threading, time
from pathlib import Path
from noahnas.data import LoadOptions, load_data, merge

def anonymous():  # kB that are not pages of a file, which the system takes back at will
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def watch():
    while True:
        seen.append(anonymous())
        time.sleep(0.005)

load_data(sys.argv[1], LoadOptions((8, 8)))  # what the libraries take
before, seen = anonymous(), []
threading.Thread(target=watch, daemon=True).start()
data = load_data(sys.argv[1], LoadOptions((512, 512)))
merge(data.train, data.val)
assert data.notes.decoded
print(max(seen) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_decoding_holds_a_few_images_in_memory_not_all(cache: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "many", ["cat", "dog"], 150)  # 236 MB once decoded
    script = [sys.executable, "-c", LARGE, str(tmp_path / "many")]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 80_000
    shutil.rmtree(cache)


def test_what_a_dead_process_left_is_swept_away_and_what_a_live_one_writes_stays(
    cache: Path, folder: Path
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = process_name().rpartition("-")[0]
    live = [f".0123.{host}-{os.getppid()}.abc", f".0123.elsewhere-{gone.pid}.abc"]
    for name in (f".0123.{host}-{gone.pid}.abc", *live):  # another machine may share the cache
        (cache / name).mkdir(parents=True)
    load(folder)
    assert sorted(p.name for p in cache.iterdir() if p.name.startswith(".")) == sorted(live)


KILLED = """
import os, signal, sys
from noahnas.data import LoadOptions, load_data
def die(progress):
    if progress.done >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
load_data(sys.argv[1], LoadOptions((8, 8), report=die))
"""


def test_a_killed_decoding_leaves_nothing_that_is_taken_for_whole(
    cache: Path, tmp_path: Path
) -> None:
    draw_images(tmp_path / "pets", ["cat", "dog"], 60)
    script = [sys.executable, "-c", KILLED, str(tmp_path / "pets")]
    assert subprocess.run(script, check=False).returncode == -9
    assert [p for p in cache.iterdir() if not p.name.startswith(".")] == []
    data = load(tmp_path / "pets")
    assert data.notes.decoded
    assert len(data.train) == 72


def test_the_store_says_what_it_holds(cache: Path, folder: Path) -> None:
    data = load(folder)
    about = json.loads((Path(data.notes.cache) / "set.json").read_text())
    assert about["digest"] == data.digest
    assert about["classes"] == ["cat", "dog"]
