"""Data sources beside the image folder: CSV lists, NumPy archives, timm's readers."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from noahnas.data import Dataset, LoadOptions, load_data
from noahnas.data.store import from_items
from noahnas.data.streams import stream_items
from noahnas.errors import DataError

from .conftest import draw_images

SIZE = (8, 8)


def load(spec: str, on_error: str = "stop") -> Dataset:
    return load_data(spec, LoadOptions(SIZE, on_error=on_error))


def counts(data: Dataset) -> list[int]:
    return [len(data.split(split)) for split in ("train", "val", "test")]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    draw_images(tmp_path / "pets", ["cat", "dog"], 10)
    return tmp_path


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


# --- CSV --------------------------------------------------------------------------------------


def test_a_csv_with_splits_is_taken_as_it_says(pets: Path) -> None:
    lines = ["path,label,split"]
    for split, numbers in (("train", range(6)), ("validation", range(6, 8)), ("test", (8, 9))):
        lines += [f"pets/{c}/{i:03}.png,{c},{split}" for c in ("cat", "dog") for i in numbers]
    data = load(write(pets / "list.csv", *lines))
    assert counts(data) == [12, 4, 4]
    assert data.classes == ("cat", "dog")
    folder = load(str(pets / "pets"))
    pictures = {
        image.numpy().tobytes()
        for s in ("train", "val", "test")
        for image in folder.split(s).images
    }
    assert all(image.numpy().tobytes() in pictures for image in data.test.images)


def test_a_csv_without_splits_is_split_by_seed_and_numbers_sort_as_numbers(pets: Path) -> None:
    lines = ["label,file"]
    for number, name in (("2", "cat"), ("10", "dog")):
        lines += [f"{number},pets/{name}/{i:03}.png" for i in range(10)]
    data = load(f"csv:{write(pets / 'list.csv', *lines)}")
    assert data.classes == ("2", "10")
    assert counts(data) == [12, 4, 4]


BROKEN_CSV = {
    "no column": (["name,label", "a,b"], "a column 'path' and a column 'label' are needed"),
    "empty": ([""], "found: nothing"),
    "no row": (["path,label"], "no image is listed"),
    "empty label": (["path,label", "a.png,"], "list.csv:2: a path and a label are needed"),
    "too many": (["path,label", "a.png,b,c"], "list.csv:2: a path and a label are needed, in 2"),
    "strange split": (["path,label,split", "a,b,dev"], "list.csv:2: split 'dev' is none of train"),
    "no train": (["path,label,split", "a,b,test"], "no row of split train"),
    "absent file": (
        ["path,label"] + [f"pets/{c}/{i:03}.png,{c}" for c in ("cat", "dog") for i in range(11)],
        r"2 unreadable images: .*010\.png \(No such file",
    ),
    "one class": (["path,label"] + [f"pets/cat/{i:03}.png,cat" for i in range(9)], "one class"),
}


@pytest.mark.parametrize("kind", BROKEN_CSV)
def test_a_broken_csv_is_refused_with_file_line_and_reason(pets: Path, kind: str) -> None:
    lines, told = BROKEN_CSV[kind]
    with pytest.raises(DataError, match=told):
        load(write(pets / "list.csv", *lines))


def test_a_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match="cannot be read: 'utf-8'"):
        load(str(tmp_path / "list.csv"))


# --- NumPy archives ---------------------------------------------------------------------------


def arrays(n: int = 40, classes: int = 4, seed: int = 0, grey: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shape = (n, 9, 9) if grey else (n, 9, 9, 3)
    return {"images": rng.integers(0, 256, shape, np.uint8), "labels": np.arange(n) % classes}


def save(path: Path, **content: Any) -> str:
    np.savez_compressed(path, **content)
    return str(path)


@pytest.mark.parametrize("grey", [False, True])
def test_an_archive_without_splits_is_split_by_seed(tmp_path: Path, grey: bool) -> None:
    names = np.array(["ash", "beech", "fir", "oak"])
    data = load(save(tmp_path / "leaves.npz", **arrays(grey=grey), classes=names))
    assert data.classes == ("ash", "beech", "fir", "oak")
    assert counts(data) == [24, 8, 8]
    assert data.train.images.shape == (24, 3, 8, 8)


def test_an_archive_with_splits_keeps_them(tmp_path: Path) -> None:
    parts = {"train": arrays(20, seed=1), "val": arrays(8, seed=2), "test": arrays(12, seed=3)}
    flat = {f"{split}_{key}": value for split, part in parts.items() for key, value in part.items()}
    data = load(save(tmp_path / "given.npz", **flat))
    assert counts(data) == [20, 8, 12]
    assert data.classes == ("0", "1", "2", "3")
    assert data.test.labels.tolist() == parts["test"]["labels"].tolist()


def test_a_large_archive_is_resized_on_disk_to_the_same_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = save(tmp_path / "set.npz", **arrays())
    small = load(spec)
    monkeypatch.setattr("noahnas.data.arrays.LARGE", 100)
    large = load(spec)
    assert (small.notes.cache, bool(large.notes.cache)) == ("", True)
    assert large.digest == small.digest
    assert not load(spec).notes.decoded


def bomb(path: Path) -> str:
    """An archive whose array claims 10^12 rows."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 9, 9), }"
    header += b" " * (64 - (10 + len(header)) % 64 - 1) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        archive.writestr("images.npy", npy)
        archive.writestr("labels.npy", npy)
    return str(path)


BROKEN_NPZ = {
    "floats": ({"images": np.zeros((4, 9, 9)), "labels": np.arange(4)}, "images is float64"),
    "two channels": (
        {"images": np.zeros((4, 9, 9, 2), np.uint8), "labels": np.arange(4)},
        r"images is uint8 \(4, 9, 9, 2\)",
    ),
    "no labels": ({"images": np.zeros((4, 9, 9), np.uint8)}, "'labels' is missing"),
    "fewer labels": ({**arrays(), "labels": np.arange(3)}, r"labels is int64 \(3,\) for 40 images"),
    "negative label": (
        {**arrays(), "labels": np.arange(40) % 4 - 1},
        "label -1 of train is not in",
    ),
    "label out of range": (
        {**arrays(), "classes": np.array(["a", "b", "c"])},
        "label 3 of train is not in 0…2",
    ),
    "identifiers": (
        {**arrays(), "labels": np.arange(40) % 4 * 10**15},
        "the highest label is 3000000000000000, but only 4 labels occur",
    ),
    "pickled": ({"images": np.array([{}], object), "labels": np.arange(1)}, "pickle"),
    "two classes of one name": (
        {**arrays(), "classes": np.array(["a", "a", "b", "c"])},
        "two classes are called a",
    ),
    "only test": ({"test_images": np.zeros((4, 9, 9), np.uint8)}, "test without train"),
    "one class": ({**arrays(), "labels": np.zeros(40, int)}, "one class"),
    "numbers as classes": ({**arrays(), "classes": np.arange(4)}, "classes is int64"),
}


@pytest.mark.parametrize("kind", BROKEN_NPZ)
def test_a_broken_archive_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    content, told = BROKEN_NPZ[kind]
    with pytest.raises(DataError, match=told):
        load(save(tmp_path / "broken.npz", **content))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "damaged.npz", **arrays()))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a NumPy archive"):
        load(str(path))


def test_no_archive_and_a_huge_one_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match="cannot be read as a NumPy archive"):
        load(str(tmp_path / "text.npz"))
    with pytest.raises(DataError, match="announces 75437 GiB"):
        load(bomb(tmp_path / "bomb.npz"))


# --- timm's readers ---------------------------------------------------------------------------


def idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def mnist(root: Path) -> np.ndarray[Any, Any]:
    """A MNIST of 60 images in torchvision's layout."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 28, 28), np.uint8)
    for word, part in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        idx(raw / f"{word}-images-idx3-ubyte", images[part])
        idx(raw / f"{word}-labels-idx1-ubyte", np.arange(60)[part] % 10)
    return images


def test_a_torchvision_set_gives_train_and_test_and_val_is_held_out(tmp_path: Path) -> None:
    images = mnist(tmp_path)
    data = load(f"torch/mnist:{tmp_path}")
    assert counts(data) == [30, 10, 20]
    assert data.classes[0] == "0 - zero"
    first = Image.fromarray(images[40]).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    assert torch.equal(data.test.images[0], torch.from_numpy(np.array(first)).permute(2, 0, 1))
    assert not load(f"torch/mnist:{tmp_path}").notes.decoded


def test_a_hugging_face_folder_is_read_by_its_reader(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the extra 'readers' is not installed")
    for split, count in (("train", 10), ("test", 4)):
        draw_images(tmp_path / split, ["cat", "dog"], count)
    data = load(f"hfds/{tmp_path}")
    assert data.classes == ("cat", "dog")
    assert counts(data) == [16, 4, 8]


def test_a_broken_half_is_a_fault_not_a_reason_to_hold_out_of_train(tmp_path: Path) -> None:
    mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="the test split is there, but broken"):
        load(f"torch/mnist:{tmp_path}")


def test_an_unreadable_image_behind_a_reader_is_named_not_swapped_for_another(
    tmp_path: Path,
) -> None:
    pytest.importorskip("datasets", reason="the extra 'readers' is not installed")
    for split in ("train", "test"):
        draw_images(tmp_path / split, ["cat", "dog"], 6)
    (tmp_path / "train" / "dog" / "002.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 unreadable image: hfds/.* image 8 \(no image\)"):
        load(f"hfds/{tmp_path}")
    data = load(f"hfds/{tmp_path}", "skip")
    assert counts(data)[2] == 12
    assert len(data.train) + len(data.val) == 11


def test_the_folder_reader_of_torchvision_reads_what_folder_reads(tmp_path: Path) -> None:
    draw_images(tmp_path, ["cat", "dog"], 6)
    data = load(f"torch/image_folder:{tmp_path}")
    assert data.digest == load(str(tmp_path)).digest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOAHNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(i: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12, 3), np.uint8))


def png(i: int) -> bytes:
    """Padded, so that a shard of other images differs in nothing but its time of change."""
    buffer = io.BytesIO()
    picture(i).save(buffer, "PNG")
    return buffer.getvalue().ljust(1000, b"\0")


def samples(numbers: range) -> dict[str, bytes]:
    """Members of a shard: an image and a label for each number."""
    members = {}
    for i in numbers:
        members |= {f"{i:04}.png": png(i), f"{i:04}.cls": b"%d" % (i % 2)}
    return members


def shard(path: Path, members: dict[str, bytes], mode: Any = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def shards(root: Path, **changes: Any) -> str:
    """A WebDataset with 20 + 6 + 8 images, two shards of train; `changes` to what train is said."""
    splits: dict[str, Any] = {}
    for split, cuts in (("train", (0, 10, 20)), ("validation", (20, 26)), ("test", (26, 34))):
        parts = [range(*cut) for cut in pairwise(cuts)]
        names = [f"{split}-{i}.tar" for i in range(len(parts))]
        for name, numbers in zip(names, parts, strict=True):
            shard(root / name, samples(numbers))
        splits[split] = {
            "name": split,
            "filenames": names,
            "num_samples": cuts[-1] - cuts[0],
            "shard_lengths": [len(numbers) for numbers in parts],
        }
    splits["train"] |= changes
    (root / "_info.json").write_text(json.dumps({"splits": splits}))
    return f"wds/pictures:{root}"


def test_shards_of_webdataset_are_read_where_their_images_lie(
    tmp_path: Path, own_cache: Path
) -> None:
    pytest.importorskip("webdataset", reason="the extra 'readers' is not installed")
    spec = shards(tmp_path)
    data = load(spec)
    assert counts(data) == [20, 6, 8]
    assert data.test.labels.tolist() == [i % 2 for i in range(26, 34)]
    second = picture(11).resize(SIZE, Image.Resampling.BICUBIC)  # of the second shard
    expected = torch.from_numpy(np.array(second)).permute(2, 0, 1)  # (3, H, W)
    assert torch.equal(data.train.images[11], expected)
    assert not (own_cache / "streams").exists()
    assert not load(spec).notes.decoded
    shard(tmp_path / "test-0.tar", samples(range(26, 34)) | {"0026.png": png(99)})
    assert load(spec).digest != data.digest


def test_an_unreadable_image_in_a_shard_is_named_and_skipped_only_when_told(
    tmp_path: Path,
) -> None:
    pytest.importorskip("webdataset", reason="the extra 'readers' is not installed")
    spec = shards(tmp_path)
    members = samples(range(10)) | {"0003.png": b"no image", "0007.png": png(7)[:100]}
    del members["0008.png"]
    shard(tmp_path / "train-0.tar", members)
    told = r"3 unreadable images: .*train-0.tar: 0003.png \(no image\); .*0007.png .*: 0008 \(none"
    with pytest.raises(DataError, match=told):
        load(spec)
    data = load(spec, "skip")
    assert counts(data) == [17, 6, 8]
    assert len(data.notes.skipped) == 3


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("no tar", r"validation-0.tar cannot be read as a tar file"),
        ("empty", r"validation-0.tar cannot be read as a tar file"),
        ("compressed", r"validation-0.tar cannot .* must be decompressed"),
        ("missing", r"validation-0.tar cannot be read: No such file"),
        ("cut at a sample", r"validation-0.tar holds 4 samples, 6 by _info.json"),
        ("cut in an image", r"validation-0.tar cannot be read .*unexpected end of data"),
        ("no label", r"validation-0.tar: sample 0021 has no label: there is no 0021.cls"),
        ("label is a word", r"validation-0.tar: 0021.cls holds no whole number"),
    ],
)
def test_a_damaged_shard_is_named_and_never_left_out(
    tmp_path: Path, fault: str, told: str, on_error: str
) -> None:
    pytest.importorskip("webdataset", reason="the extra 'readers' is not installed")
    spec, path = shards(tmp_path), tmp_path / "validation-0.tar"
    members = samples(range(20, 26))
    if fault == "no tar":
        path.write_bytes(b"junk " * 700)
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "compressed":
        shard(path, members, "w:gz")
    elif fault == "missing":
        path.unlink()
    elif fault == "cut at a sample":
        shard(path, samples(range(20, 24)))
    elif fault == "cut in an image":
        path.write_bytes(path.read_bytes()[: 2 * (512 + 1024 + 1024) + 600])
    elif fault == "no label":
        shard(path, {name: part for name, part in members.items() if name != "0021.cls"})
    else:
        shard(path, members | {"0021.cls": b"cat"})
    with pytest.raises(DataError, match=told):
        load(spec, on_error)


def test_a_split_with_fewer_samples_than_its_info_says_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra 'readers' is not installed")
    spec = shards(tmp_path, shard_lengths=[], num_samples=21)
    with pytest.raises(DataError, match="shards of train hold 20 samples, 21 by _info"):
        load(spec)


def test_labels_of_shards_may_lie_in_json_and_negative_ones_are_left_out(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra 'readers' is not installed")
    spec = shards(tmp_path, alt_label="kind")
    for part, numbers in enumerate((range(10), range(10, 20))):
        members = {}
        for i in numbers:
            kind = -1 if i == 4 else i % 2
            members |= {f"{i:04}.png": png(i), f"{i:04}.json": json.dumps({"kind": kind}).encode()}
        shard(tmp_path / f"train-{part}.tar", members)
    assert load(spec).train.labels.tolist() == [i % 2 for i in range(20) if i != 4]


# tensorflow-datasets is not installed here: a list of images stands in for what timm makes of it


class Stream:
    """Images and labels, and how often they were asked for."""

    def __init__(self, rows: Sequence[tuple[Any, int]], error: Exception | None = None) -> None:
        self.rows, self.error, self.passes = rows, error, 0

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        self.passes += 1
        yield from self.rows
        if self.error:
            raise self.error


def streams() -> dict[str, Stream]:
    parts = {"train": range(12), "val": range(12, 16), "test": range(16, 20)}
    return {
        split: Stream([(picture(i), i % 2) for i in numbers]) for split, numbers in parts.items()
    }


def read_streams(found: dict[str, Stream], on_error: str = "stop") -> Dataset:
    options = LoadOptions(SIZE, on_error=on_error)
    items = {split: stream_items(f"set {split}", s, "v1", options) for split, s in found.items()}
    return from_items("set", ["a", "b"], items, options)


def test_a_stream_is_read_once_and_leaves_only_its_labels_in_the_cache(own_cache: Path) -> None:
    found = streams()
    data = read_streams(found)
    assert counts(data) == [12, 4, 4]
    last = torch.from_numpy(np.array(picture(19).resize(SIZE, Image.Resampling.BICUBIC)))
    assert torch.equal(data.test.images[3], last.permute(2, 0, 1))
    assert read_streams(found).digest == data.digest
    assert [stream.passes for stream in found.values()] == [1, 1, 1]
    assert {path.suffix for path in (own_cache / "streams").iterdir()} == {".json"}


@pytest.mark.parametrize("content", ["garbage", "{}", '{"labels": [0, 1], "digest": "0"}', ""])
def test_damaged_labels_of_a_stream_are_named_and_read_anew(
    content: str, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = read_streams(streams())
    kept = sorted((own_cache / "streams").iterdir())
    kept[0].write_text(content)
    assert read_streams(streams()).digest == data.digest
    assert [str(kept[0]) in record.getMessage() for record in caplog.records] == [True]
    caplog.clear()
    read_streams(streams())
    assert not caplog.records


def test_a_stream_is_read_again_if_its_decoded_images_are_gone(own_cache: Path) -> None:
    data = read_streams(streams())
    shutil.rmtree(own_cache / "images")
    assert read_streams(streams()).digest == data.digest
    shutil.rmtree(own_cache / "images")
    changed = streams()
    changed["val"].rows = [(image, 1 - label) for image, label in changed["val"].rows]
    with pytest.raises(DataError, match="set val: its labels are not those that were read first"):
        read_streams(changed)


@pytest.mark.usefixtures("own_cache")
def test_an_unreadable_image_in_a_stream_is_named_and_skipped_only_when_told() -> None:
    found = streams()
    found["train"].rows = [(b"no image", 0), *found["train"].rows[1:]]
    with pytest.raises(DataError, match=r"1 unreadable image: set train 0 \(no image\)"):
        read_streams(found)
    assert counts(read_streams(found, "skip")) == [11, 4, 4]


@pytest.mark.usefixtures("own_cache")
def test_a_stream_that_breaks_off_is_refused_and_not_kept() -> None:
    found = streams()
    found["val"].error = RuntimeError("data loss\nat record 4")
    with pytest.raises(DataError, match="set val: the stream breaks off after 4 images: data loss"):
        read_streams(found)
    assert counts(read_streams(streams())) == [12, 4, 4]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("torch/no_such_set:.", "Unknown torchvision dataset no_such_set"),
        ("torch/mnist:ROOT", "finds no train split"),
        ("torch/mnist", "name its directory: torch/mnist:ROOT"),
        ("timm:cifar10", "names none of timm's readers"),
        ("tfds/mnist:ROOT", "pip install tensorflow-datasets"),
    ],
)
def test_a_reader_that_finds_nothing_says_why(tmp_path: Path, spec: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        load(spec.replace("ROOT", str(tmp_path / "empty")))
