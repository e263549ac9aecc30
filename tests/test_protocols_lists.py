"""Few-shot learning and domain generalisation through the whole command, on small lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import noahnas
from noahnas import NoahnasError
from noahnas.data import LoadOptions, load_data

from .conftest import draw_images, invoke
from .protocol_data import few_shot_set, imagenets, recipe, write
from .test_protocols import column

OPTIONS = LoadOptions((16, 16))


# --- few-shot -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few-shot")
    few_shot_set(root, "oxford_pets", 37, [1, 2], [0, 1])
    few_shot_set(root, "mine", 3, [1, 2], [0, 1], inside=".")
    recipe(root, "few-shot", "first-seed")
    return root


def test_few_shot_searches_with_the_first_seed_and_retrains_its_winner_with_each(
    sets: Path, tmp_path: Path
) -> None:
    code, printed, error = invoke(
        "reproduce", "few-shot", "--root", str(sets), "--sets", "oxford_pets,mine", "--shots",
        "1,2", "--seeds", "0-1", "--rows", "adapter-2,noah", "--recipe",
        str(sets / "few-shot.yaml"), "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert code == 0, error
    table = json.loads(printed)
    first, second = (
        json.loads((tmp_path / f"mine/shots-2/noah/seed-{seed}/run.json").read_text())
        for seed in (0, 1)
    )
    winner = json.loads((tmp_path / "mine/shots-2/noah/seed-0/result.json").read_text())["arch"]
    assert (first["command"], second["command"]) == ("search", "retrain")
    assert second["inputs"]["arch"] == winner
    assert first["digests"]["data"] != second["digests"]["data"]  # each seed has its own shots
    assert first["images"] == {"train": 2 * 3, "val": 2 * 3, "test": 3 * 3}
    ours = column(table, "adapter-2")
    assert set(ours["tasks"]) == {
        f"{name}/shots-{k}" for name in ("oxford_pets", "mine") for k in (1, 2)
    }
    scores = [ours["tasks"][f"{name}/shots-1"]["mean"] for name in ("oxford_pets", "mine")]
    assert ours["groups"]["1 shot"] == pytest.approx(sum(scores) / 2)
    assert ours["tasks"]["mine/shots-1"]["sd"] is not None
    cost = json.loads((tmp_path / "mine/shots-2/adapter-2/seed-0/result.json").read_text())["cost"]
    assert cost["retrain"]["passes"] == 3 * 6 * 2  # val adds no shots


def test_the_first_seed_of_a_search_must_stay_the_first(sets: Path, tmp_path: Path) -> None:
    def seeds(given: str, rows: str = "linear,noah") -> tuple[int, str, str]:
        return invoke(
            "reproduce", "few-shot", "--root", str(sets), "--sets", "mine", "--shots", "1,2",
            "--seeds", given, "--rows", rows, "--recipe", str(sets / "few-shot.yaml"), "--out",
            str(tmp_path), "--json",
        )  # fmt: skip

    assert seeds("1")[0] == 0
    code, _, error = seeds("0-1")
    assert code == 2
    assert "shots-1/noah/seed-1 was begun as the search, whose winner the other seeds" in error
    assert "the first seed must stay the first: give --seeds 1,0, or" in error
    assert not list(tmp_path.rglob("seed-0"))
    code, printed, error = seeds("1,0")
    assert code == 0, error
    assert (
        json.loads(printed)["runs"]["mine/shots-2/noah/seed-0"]["arch"]
        == (json.loads(printed)["runs"]["mine/shots-2/noah/seed-1"]["arch"])
    )
    code, _, error = seeds("0", "noah")
    assert code == 2
    assert "noah/seed-0 was begun as a retraining of another seed's winner" in error


def test_inputs_of_all_runs_that_are_there_are_compared_before_any_training(
    sets: Path, tmp_path: Path
) -> None:
    def run(shots: str, habit: str, *more: str) -> tuple[int, str, str]:
        return invoke(
            "reproduce", "few-shot", "--root", str(sets), "--sets", "mine", "--shots", shots,
            "--rows", "linear", "--seeds", "0", "--recipe", str(sets / "few-shot.yaml"), "--out",
            str(tmp_path), "--protocol", habit, *more,
        )  # fmt: skip

    assert run("2", "paper")[0] == 0
    assert run("1,2", "honest", "--dry-run")[0] == 2
    code, _, error = run("1,2", "honest")
    assert code == 2
    assert "shots-2/linear/seed-0 was begun with other inputs (test_every)" in error
    assert not (tmp_path / "mine/shots-1").exists()


def test_lists_name_files_with_blanks_and_a_line_that_stands_twice_counts_once(sets: Path) -> None:
    found = load_data(f"few-shot:{sets / 'mine'},shots=1,seed=1", OPTIONS)
    assert found.train.labels.tolist() == [0, 1, 2]
    assert len(load_data(f"few-shot:{sets / 'oxford_pets'},shots=2", OPTIONS).train) == 2 * 37


def test_shots_are_drawn_by_seed_from_any_source() -> None:
    whole = load_data("digits", OPTIONS)
    first = load_data("few-shot:digits,shots=8,seed=0", OPTIONS)
    again = load_data("few-shot:digits,shots=8,seed=0", OPTIONS)
    other = load_data("few-shot:digits,shots=8,seed=1", OPTIONS)
    assert np.bincount(first.train.labels).tolist() == [8] * 5
    assert np.bincount(first.val.labels).tolist() == [4] * 5
    assert torch.equal(first.train.images, again.train.images)
    assert not torch.equal(first.train.images, other.train.images)
    assert torch.equal(first.test.images, whole.test.images)
    assert first.digest == again.digest != other.digest


def test_few_shot_from_a_folder_of_images_through_the_command(sets: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "my pets", ["ant", "bee", "cat"], 10)
    code, printed, error = invoke(
        "reproduce", "few-shot", "--data", str(tmp_path / "my pets"), "--shots", "2", "--seeds",
        "0", "--rows", "linear", "--recipe", str(sets / "few-shot.yaml"), "--out",
        str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert code == 0, error
    assert list(column(json.loads(printed), "linear")["tasks"]) == ["my-pets/shots-2"]
    about = json.loads((tmp_path / "out/my-pets/shots-2/linear/seed-0/run.json").read_text())
    assert about["images"] == {"train": 6, "val": 6, "test": 6}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nosuch"], "unknown data 'nosuch'"),
        (["nosuch", "--dry-run"], "unknown data 'nosuch'"),
        (["digits", "--shots", "1,999"], "41 training images of class 5, 999 wanted"),
        (["LISTS", "--shots", "1,4"], "num_shot_4.seed_0"),
    ],
)
def test_a_source_is_checked_for_the_most_shots_before_any_training(
    args: list[str], message: str, sets: Path, tmp_path: Path
) -> None:
    data, *more = args
    code, _, error = invoke(
        "reproduce", "few-shot", "--data", data.replace("LISTS", str(sets / "mine")), *more,
        "--recipe", str(sets / "few-shot.yaml"), "--rows", "linear", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert code == 2
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sets", "food-101"], "has no food-101/annotations with lists"),
        (["--sets", "pets"], "the paper's sets: food-101, oxford_flowers"),
        (["--sets", "mine", "--shots", "4"], "there is no list"),
        (["--sets", "mine", "--shots", "0"], "shots is at least 1"),
        (["--sets", "mine", "--data", "digits"], "either --root or --data"),
    ],
)
def test_a_wrong_few_shot_option_is_named(
    args: list[str], message: str, sets: Path, tmp_path: Path
) -> None:
    own = ["--root", str(sets), "--recipe", str(sets / "few-shot.yaml")]
    out = ["--out", str(tmp_path / "out")]
    code, _, error = invoke("reproduce", "few-shot", *own, *out, *args)
    assert code == 2
    assert message in " ".join(error.replace("│", " ").split())


def test_more_shots_than_promised_or_than_there_are_is_a_fault(sets: Path, tmp_path: Path) -> None:
    folder = few_shot_set(tmp_path, "mine", 3, [1, 2], [0])
    notes = folder / "annotations"
    (notes / "train_meta.list.num_shot_2.seed_0").rename(
        notes / "train_meta.list.num_shot_1.seed_0"
    )
    with pytest.raises(NoahnasError, match="2 images of class 0, where 1 were promised"):
        load_data(f"few-shot:{folder},shots=1", OPTIONS)
    with pytest.raises(NoahnasError, match="41 training images of class 5, 100 wanted"):
        load_data("few-shot:digits,shots=100", OPTIONS)
    with pytest.raises(NoahnasError, match="shots=many is no whole number"):
        load_data("few-shot:digits,shots=many", OPTIONS)


def test_a_set_of_the_paper_with_another_number_of_classes_is_a_fault(tmp_path: Path) -> None:
    folder = few_shot_set(tmp_path, "oxford-pets", 38, [1], [0])
    with pytest.raises(NoahnasError, match="the label 37 is not in 0…36"):
        load_data(f"few-shot:{folder},shots=1", OPTIONS)


def test_a_gap_in_the_labels_of_a_set_that_is_not_known_is_a_fault(tmp_path: Path) -> None:
    folder = few_shot_set(tmp_path, "mine", 3, [1], [0])
    train = folder / "annotations/train_meta.list.num_shot_1.seed_0"
    train.write_text(train.read_text().replace(".png 1", ".png 123456789"))
    with pytest.raises(
        NoahnasError, match="labels go up to 123456789, but no image has the label 1"
    ):
        load_data(f"few-shot:{folder}", OPTIONS)
    train.write_text(train.read_text().replace("123456789", "1" * 5000))
    with pytest.raises(NoahnasError, match="is no whole number"):
        load_data(f"few-shot:{folder}", OPTIONS)


# --- domain generalisation --------------------------------------------------------------------


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """ImageNets with 5 classes, of which A and R hold two; and what the command printed."""
    root = tmp_path_factory.mktemp("domains")
    imagenets(root, classes=5, shots=4, seeds=[0, 1], subset=[1, 3])
    recipe(root, "domain-generalisation", "first-seed")
    code, printed, error = invoke(
        "reproduce", "domain-generalisation", "--root", str(root), "--shots", "4", "--seeds",
        "0-1", "--rows", "lora-2,noah", "--recipe", str(root / "domain-generalisation.yaml"),
        "--out", str(root / "out"), "--json",
    )  # fmt: skip
    assert code == 0, error
    return root, json.loads(printed)


def test_one_winner_is_scored_on_every_target(domains: tuple[Path, dict[str, Any]]) -> None:
    root, table = domains
    for row in ("lora-2", "noah"):
        runs = [root / f"out/imagenet/{row}/seed-{seed}" for seed in (0, 1)]
        targets = [json.loads((run / "targets.json").read_text()) for run in runs]
        tests = [json.loads((run / "result.json").read_text())["test"]["accuracy"] for run in runs]
        ours = column(table, row)
        expected = {
            "imagenet": sum(tests) / 2,
            "imagenetv2": sum(t["imagenetv2"]["accuracy_all"] for t in targets) / 2,
            "imagenet-adversarial": sum(t["imagenet-adversarial"]["accuracy"] for t in targets) / 2,
            "imagenet-adversarial among all classes": sum(
                t["imagenet-adversarial"]["accuracy_all"] for t in targets) / 2,
        }  # fmt: skip
        for line, mean in expected.items():
            assert ours["tasks"][line]["mean"] == pytest.approx(100 * mean), line
        four = ["imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition"]
        mean = sum(ours["tasks"][target]["mean"] for target in four) / 4
        assert ours["groups"]["targets"] == pytest.approx(mean)
    assert column(table, "noah", "paper")["tasks"]["imagenet"] is None  # not sourced


def test_a_subset_is_scored_among_its_own_classes(domains: tuple[Path, dict[str, Any]]) -> None:
    """Recomputed from logits: the best of classes 1 and 3 alone, and of all five."""
    root, _ = domains
    run = root / "out/imagenet/noah/seed-0"
    tuned = noahnas.load(run)
    spec = f"domains:{root},shots=4,target=imagenet-adversarial"
    test = load_data(spec, LoadOptions(tuned.preprocess.size)).test
    ((x, labels),) = test.batches(64, tuned.preprocess, torch.device("cpu"))
    with torch.inference_mode():
        logits = tuned(x)  # (8, 5)
    assert set(labels.tolist()) == {1, 3}
    among = torch.where(logits[:, 1] > logits[:, 3], 1, 3)
    found = json.loads((run / "targets.json").read_text())["imagenet-adversarial"]
    assert found["accuracy"] == pytest.approx((among == labels).double().mean().item())
    assert found["accuracy_all"] == pytest.approx(
        (logits.argmax(1) == labels).double().mean().item()
    )
    assert found["accuracy_all"] < found["accuracy"]
    assert (found["classes"], found["of"], found["images"]) == (2, 5, 8)


def test_targets_that_are_done_are_not_scored_again(
    domains: tuple[Path, dict[str, Any]],
) -> None:
    root, _ = domains
    path = root / "out/imagenet/noah/seed-0/targets.json"
    before = path.stat().st_mtime_ns
    code, printed, error = invoke(
        "reproduce", "domain-generalisation", "--root", str(root), "--shots", "4", "--seeds",
        "0-1", "--rows", "lora-2,noah", "--recipe", str(root / "domain-generalisation.yaml"),
        "--out", str(root / "out"),
    )  # fmt: skip
    assert code == 0, error
    assert path.stat().st_mtime_ns == before
    assert "ImageNet-A among all classes" in printed


def test_a_target_that_has_changed_is_scored_anew_and_a_damaged_file_is_named(
    tmp_path: Path,
) -> None:
    imagenets(tmp_path, classes=3, shots=2, seeds=[0], subset=[0, 2])
    recipe(tmp_path, "domain-generalisation", "first-seed")
    command = [
        "reproduce", "domain-generalisation", "--root", str(tmp_path), "--shots", "2", "--rows",
        "linear", "--targets", "imagenetv2,imagenet-sketch", "--on-error", "skip", "--recipe",
        str(tmp_path / "domain-generalisation.yaml"), "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    assert invoke(*command)[0] == 0
    path = tmp_path / "out/imagenet/linear/seed-0/targets.json"
    before = json.loads(path.read_text())
    (tmp_path / "imagenetv2/imagenetv2/x _ y 1.png").write_bytes(b"no")
    code, _, error = invoke(*command)
    assert code == 0, error
    after = json.loads(path.read_text())
    assert after["imagenet-sketch"] == before["imagenet-sketch"]
    assert after["imagenetv2"]["digest"] != before["imagenetv2"]["digest"]
    for found, images, skipped in ((before, 12, 0), (after, 11, 1)):
        assert (found["imagenetv2"]["images"], found["imagenetv2"]["skipped"]) == (images, skipped)
    path.write_text(path.read_text()[:40])
    code, _, error = invoke(*command)
    assert code == 2
    assert f"{path} is damaged" in error
    assert "remove it, and the targets are scored anew" in error
    path.unlink()
    assert invoke(*command)[0] == 0
    assert json.loads(path.read_text()) == after


def test_faults_of_a_target_are_found_before_training(tmp_path: Path) -> None:
    imagenets(tmp_path, classes=3, shots=2, seeds=[0], subset=[0, 2])
    recipe(tmp_path, "domain-generalisation", "first-seed")
    command = [
        "reproduce", "domain-generalisation", "--root", str(tmp_path), "--shots", "2", "--seeds",
        "0", "--rows", "linear", "--recipe", str(tmp_path / "domain-generalisation.yaml"),
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    notes = tmp_path / "imagenet-rendition/annotations/val_meta.list"
    lines = notes.read_text().splitlines()
    write(notes, [*lines, lines[0].rpartition(" ")[0].replace(" 0.", " 1.") + " 3"])
    code, _, error = invoke(*command)
    assert code == 2
    assert f"val_meta.list:{len(lines) + 1}: the label 3 is not in 0…2" in error
    notes.unlink()
    code, _, error = invoke(*command)
    assert (code, "there is no list" in error) == (2, True)
    code, _, error = invoke(*command, "--targets", "imagenet-x")
    assert (code, "unknown target 'imagenet-x'" in error) == (2, True)
    assert not (tmp_path / "out").exists()
