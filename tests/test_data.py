from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import label as count_blobs

from noahnas.backbone import Preprocess
from noahnas.data import Dataset, LoadOptions, Split, load_data, merge, rendered, stratified, tasks
from noahnas.errors import DataError

from .conftest import draw_images


def test_the_embedded_digits_have_five_classes_and_three_disjoint_splits(digits: Dataset) -> None:
    assert digits.classes == ("5", "6", "7", "8", "9")
    assert [len(digits.split(s)) for s in ("train", "val", "test")] == [200, 99, 597]
    pixels = torch.cat([digits.split(s).images for s in ("train", "val", "test")])
    assert len(torch.unique(pixels.flatten(1), dim=0)) == len(pixels)


def test_folders_named_train_val_and_test_are_taken_as_given(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        draw_images(tmp_path / split, ["cat", "dog"], count)
    data = load_data(str(tmp_path), LoadOptions((8, 12)))
    assert data.classes == ("cat", "dog")
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [12, 4, 6]
    assert data.train.images.shape == (12, 3, 8, 12)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.bincount().tolist() == [6, 6]


def test_plain_class_folders_are_split_in_proportion_by_seed(tmp_path: Path) -> None:
    draw_images(tmp_path, ["cat"], 20)
    draw_images(tmp_path, ["dog"], 10)
    data = load_data(str(tmp_path), LoadOptions((8, 8)))
    counts = [data.split(s).labels.bincount().tolist() for s in ("train", "val", "test")]
    assert counts == [[12, 6], [4, 2], [4, 2]]
    assert load_data(str(tmp_path), LoadOptions((8, 8))).digest == data.digest
    assert load_data(str(tmp_path), LoadOptions((8, 8), split_seed=1)).digest != data.digest


def test_splits_are_known_by_other_words_in_any_case(tmp_path: Path) -> None:
    for word, count in (("Train", 6), ("valid", 2), ("TEST", 3)):
        draw_images(tmp_path / word, ["cat", "dog"], count)
    data = load_data(str(tmp_path), LoadOptions((8, 8)))
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [12, 4, 6]


def test_hidden_directories_are_passed_over_and_other_files_are_told(tmp_path: Path) -> None:
    draw_images(tmp_path, ["cat", "dog"], 6)
    draw_images(tmp_path / "cat", [".ipynb_checkpoints"], 2)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "dog" / "005.png").rename(tmp_path / "dog" / "005.jfif")
    for _ in range(2):
        data = load_data(str(tmp_path), LoadOptions((8, 8)))
        assert sum(len(data.split(s)) for s in ("train", "val", "test")) == 12
        assert [Path(name).name for name in data.notes.ignored] == ["notes.txt"]


def test_a_missing_val_is_taken_out_of_train_and_test_stays(tmp_path: Path) -> None:
    draw_images(tmp_path / "train", ["cat", "dog"], 10)
    draw_images(tmp_path / "test", ["cat", "dog"], 3)
    data = load_data(f"folder:{tmp_path}", LoadOptions((8, 8)))
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [16, 4, 6]


def test_an_image_is_upright_rgb_and_resized_directly(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_images(tmp_path, [name], 3)
    grey = Image.new("L", (40, 10), 200)
    exif = Image.Exif()
    exif[274] = 6  # stored lying on its side
    grey.save(tmp_path / "a" / "rotated.jpg", exif=exif)
    half = Image.new("RGBA", (4, 4), (0, 0, 255, 255))
    half.save(tmp_path / "b" / "blue.png")
    data = load_data(str(tmp_path), LoadOptions((6, 6)))
    everything = merge(merge(data.train, data.val), data.test)
    means = everything.images.float().mean(dim=(2, 3))
    assert any(torch.allclose(m, torch.tensor([200.0] * 3), atol=2) for m in means)
    assert any(torch.allclose(m, torch.tensor([0.0, 0.0, 255.0]), atol=2) for m in means)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    for name, value in (("dark", 16_000), ("light", 48_000)):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.full((8, 8), value + 257 * i, np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = load_data(str(tmp_path), LoadOptions((4, 4)))
    shades = merge(merge(data.train, data.val), data.test).images.unique().tolist()
    assert shades == [62, 63, 64, 186, 187, 188]


def test_a_source_without_arguments_refuses_one() -> None:
    for spec in ("digits:0-4", "count:3"):
        with pytest.raises(DataError, match="takes no argument"):
            load_data(spec, LoadOptions((8, 8)))


def broken(root: Path, kind: str) -> None:
    match kind:
        case "one class":
            draw_images(root, ["cat"], 5)
        case "no image":
            (root / "cat").mkdir()
        case "unreadable images":
            draw_images(root, ["cat", "dog"], 5)
            (root / "dog" / "bad.png").write_bytes(b"no image")
            (root / "dog" / "short.png").write_bytes((root / "dog" / "000.png").read_bytes()[:99])
        case "are both val folders":
            for word in ("train", "val", "valid"):
                draw_images(root / word, ["cat", "dog"], 4)
        case "holds splits (train) beside more":
            draw_images(root / "train", ["cat", "dog"], 4)
            draw_images(root, ["more"], 4)
        case "no train folder":
            draw_images(root / "test", ["cat", "dog"], 5)
        case "classes that train lacks: fox":
            draw_images(root / "train", ["cat", "dog"], 5)
            draw_images(root / "val", ["cat", "fox"], 5)
        case "too few images of dog":
            draw_images(root, ["cat"], 5)
            draw_images(root, ["dog"], 2)
        case "no train image of dog":
            draw_images(root / "train", ["cat", "eel"], 5)
            (root / "train" / "dog").mkdir()
            for split in ("val", "test"):
                draw_images(root / split, ["cat", "dog", "eel"], 2)


@pytest.mark.parametrize(
    "kind",
    [
        "one class",
        "no image",
        "unreadable images",
        "are both val folders",
        "holds splits (train) beside more",
        "no train folder",
        "classes that train lacks: fox",
        "too few images of dog",
        "no train image of dog",
    ],
)
def test_unusable_folders_are_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    broken(tmp_path, kind)
    with pytest.raises(DataError) as caught:
        load_data(str(tmp_path), LoadOptions((8, 8)))
    assert kind in str(caught.value)
    if kind == "unreadable images":
        assert "bad.png" in str(caught.value)
        assert "short.png" in str(caught.value)


def test_an_unknown_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load_data("digit", LoadOptions((8, 8)))


def test_batches_are_normalised_and_hold_every_image_once() -> None:
    split = Split(torch.full((5, 3, 2, 2), 255, dtype=torch.uint8), torch.arange(5))
    preprocess = Preprocess((2, 2), (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    order = torch.tensor([4, 3, 2, 1, 0])
    batches = list(split.batches(2, preprocess, torch.device("cpu"), order))
    assert torch.cat([y for _, y in batches]).tolist() == [4, 3, 2, 1, 0]
    assert [len(y) for _, y in batches] == [2, 2, 1]
    assert batches[0][0][0, :, 0, 0].tolist() == [1.0, 3.0, 0.5]


@settings(max_examples=60)
@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=5),
    st.tuples(st.floats(0.05, 0.4), st.floats(0.05, 0.4)),
    st.integers(0, 99),
)
def test_stratified_parts_are_disjoint_whole_and_in_proportion(
    counts: list[int], shares: tuple[float, float], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = stratified(labels, shares, np.random.default_rng(seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, share in zip(parts, shares, strict=False):
        for label, count in enumerate(counts):
            got = int((labels[part] == label).sum())
            assert got >= 1
            assert abs(got - share * count) <= 1 or got == count - 2


@pytest.mark.parametrize(
    ("name", "classes"), [("count", 8), ("distance", 6), ("heading", 16), ("x-position", 16)]
)
def test_a_rendered_task_has_its_classes_distinct_pictures_and_one_digest_for_a_seed(
    name: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "COUNTS", {"train": 160, "val": 32, "test": 48})
    data = load_data(name, LoadOptions((56, 56)))
    assert len(data.classes) == classes
    assert data.train.images.shape == (160, 3, 56, 56)
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [160, 32, 48]
    assert load_data(name, LoadOptions((56, 56))).digest == data.digest
    assert load_data(name, LoadOptions((56, 56), split_seed=1)).digest != data.digest
    pixels = torch.cat([data.split(s).images for s in ("train", "val", "test")])
    assert len(torch.unique(pixels.flatten(1), dim=0)) == len(pixels)


def test_the_count_task_shows_as_many_objects_as_its_label_says() -> None:
    """Bright blobs on the dark ground, counted by flood fill."""
    pictures, labels = rendered.count(np.random.default_rng(0), 24)
    right = 0
    for picture, label in zip(pictures, labels, strict=True):
        _, found = count_blobs(picture.max(axis=2) > 115)
        right += int(found == label + 1)
    assert right >= 22  # blobs of objects that nearly touch may merge
