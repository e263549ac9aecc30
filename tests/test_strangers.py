"""What others made is read without running code of theirs."""

from __future__ import annotations

import io
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

from noahnas.backbone import Backbone, load_backbone
from noahnas.data import Dataset, LoadOptions, Task, load_data
from noahnas.data.image import LARGE, UnreadableImageError, read_pixels
from noahnas.errors import BackboneError, DataError, NoahnasError, RunError
from noahnas.export import load
from noahnas.files import SEAL, read_sealed_json, sealed, sealed_json
from noahnas.pipeline import resume
from noahnas.policy import only
from noahnas.printable import printable
from noahnas.recipe import Stage
from noahnas.space import Arch
from noahnas.train import build, train
from noahnas.typed import typed

from .conftest import invoke
from .hostile import EPS, Sandbox


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(tmp_path_factory.mktemp("strangers") / "sandbox")


@pytest.fixture
def run(box: Sandbox, tmp_path: Path) -> Path:
    """A finished run, of which a test may spoil what it likes."""
    return Path(shutil.copytree(box.whole, tmp_path / "run"))


def altered(run: Path, name: str, **changes: object) -> None:
    """Write other values to a file of a run, with the digest that fits them."""
    path = run / name
    path.write_bytes(sealed_json(read_sealed_json(path.read_bytes()) | changes))


def with_inputs(run: Path, **changes: object) -> None:
    about = read_sealed_json((run / "run.json").read_bytes())
    altered(run, "run.json", inputs=about["inputs"] | changes)


def test_code_in_any_file_of_a_run_is_not_run_whatever_is_done_with_the_run(
    run: Path, box: Sandbox, tmp_path: Path
) -> None:
    buffer, sprung = io.BytesIO(), tmp_path / "sprung"
    torch.save({"key": "x", "weights": Trap(sprung)}, buffer)
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert sprung.exists()  # it is a trap
    sprung.unlink()
    looks = (
        ("predict", str(run), str(box.data / "ant" / "0.png")),
        ("search", "--resume", str(run)),
    )
    trains = (
        ("retrain", str(run), "--retrain-epochs", "1", "--out", str(tmp_path / "again")),
        ("diagnose", str(run), "--archs", "3", "--epochs", "1"),
    )
    names = sorted(p.name for p in run.iterdir() if p.is_file())
    assert {"run.json", "stages.json", "study.journal", "best.safetensors"} <= set(names)
    checkpoints = ("supernet.ckpt", "retrain.ckpt", "search.ckpt")
    for name in (*names, *checkpoints):
        if name in checkpoints:  # what goes on reads it, and holds its digest to be right
            (run / "result.json").unlink()
            (run / "stages.json").unlink()
            (run / name).write_bytes(sealed(buffer.getvalue()))
        else:
            (run / name).write_bytes(buffer.getvalue())
        for command in (*looks, *(trains if name in ("run.json", "stages.json") else ())):
            code, _, _ = invoke(*command)
            assert code in (0, 2), (name, command)
            assert not sprung.exists(), (name, command)
        shutil.rmtree(run)
        shutil.copytree(box.whole, run)


def test_a_shell_command_in_the_place_of_shards_is_not_run(run: Path, tmp_path: Path) -> None:
    spec = f"wds/pets:pipe:touch {tmp_path}/sprung #"
    with pytest.raises(DataError, match="is no directory"):
        load_data(spec, LoadOptions((16, 16)))
    with_inputs(run, data=spec)
    (run / "result.json").unlink()
    with pytest.raises(NoahnasError):
        resume(run)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["study.journal", "run.lock", "supernet.safetensors", "more"])
def test_a_link_in_a_run_is_refused_and_what_it_leads_to_stays(
    run: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "diary").write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "diary")
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="is a link"):
        resume(run)
    assert (tmp_path / "diary").read_text() == "mine"


def test_a_pipe_in_a_run_is_refused_without_waiting_for_it(run: Path) -> None:
    (run / "stages.json").unlink()
    os.mkfifo(run / "stages.json")
    code, _, error = invoke("search", "--resume", str(run))
    assert (code, "no regular file" in error) == (2, True), error


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipe": {"name": 3}}, "recipe"),
        ({"seed": 10**30}, "seed"),
        ({"threads": "many"}, "threads"),
        ({"arch": {"lora": [10**12] * 4}}, "at most"),
        ({"space": ["tiny"]}, "space"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_inputs_of_another_kind_are_named_though_their_digest_fits(
    run: Path, changes: dict[str, object], told: str
) -> None:
    with_inputs(run, **changes)
    (run / "result.json").unlink()
    code, _, error = invoke("search", "--resume", str(run))
    assert (code, told in error) == (2, True), error


def test_a_study_that_is_not_where_a_run_says_is_not_made_there(run: Path, tmp_path: Path) -> None:
    (run / "result.json").unlink()
    for url in (f"sqlite:///{tmp_path}/new.db", f"journal:{tmp_path}/new.db"):
        with_inputs(run, storage=url, study="", patience=60.0)
        code, _, error = invoke("search", "--resume", str(run))
        assert (code, "is not there" in error) == (2, True), error
        assert not (tmp_path / "new.db").exists()


def test_an_arch_larger_than_the_weights_beside_it_is_refused_before_it_is_built(run: Path) -> None:
    altered(run, "result.json", arch={"adapter": [1_000_000] * 4})
    with pytest.raises(RunError, match="not of this architecture"):
        load(run)


def test_a_program_that_would_draw_an_image_is_not_called(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(EPS)
    with pytest.raises(UnreadableImageError, match="no image"):
        read_pixels(tmp_path / "x.png", (16, 16))


def test_what_is_no_file_is_not_read_as_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="no regular file"):
        read_pixels(tmp_path / "x.png", (16, 16))


def test_a_large_image_is_the_same_picture(tmp_path: Path) -> None:
    side = int(LARGE**0.5) + 1
    Image.new("L", (side, side), 77).save(tmp_path / "x.png")
    assert (read_pixels(tmp_path / "x.png", (2, 2)) == 77).all()


def test_an_archive_that_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((4, 512, 512), np.uint8))
    monkeypatch.setattr("noahnas.data.npz.memory", lambda: 2**20)
    with pytest.raises(DataError, match="unpacked, more than"):
        load_data(str(tmp_path / "x.npz"), LoadOptions((16, 16)))


def test_weights_that_ask_for_a_larger_model_than_they_hold_are_refused(tmp_path: Path) -> None:
    state = {
        "pos_embed": torch.ones(1, 5, 64), "cls_token": torch.ones(1, 1, 64),
        "patch_embed.proj.weight": torch.ones(64, 3, 4, 4),
        "blocks.0.mlp.fc1.weight": torch.ones(128, 64),
    }  # fmt: skip
    for more in ({"blocks.999999999.x": torch.ones(1)}, {"blocks.3.x": torch.ones(1)}):
        torch.save(state | more, tmp_path / "x.pth")
        with pytest.raises(BackboneError, match="unusable"):
            load_backbone(str(tmp_path / "x.pth"))


def test_names_can_neither_command_a_terminal_nor_be_taken_for_markup(
    run: Path, box: Sandbox
) -> None:
    about = read_sealed_json((run / "run.json").read_bytes())
    assert len(about["classes"]) == 2
    altered(run, "run.json", classes=["[red]a[/]", "\x1b[31m[/]"])
    code, out, _ = invoke("predict", str(run), *map(str, sorted(box.data.rglob("*.png"))))
    assert code == 0
    assert "\x1b" not in out
    assert "[red]a[/]" in out or "\\x1b[31m[/]" in out
    assert printable("a\x1b]0;x\x07\udcff\u202eb\tü💥") == ("a\\x1b]0;x\\x07\\udcff\\u202eb\tü💥")


def test_json_that_is_nested_too_deep_is_damaged(run: Path) -> None:
    for name in ("run.json", "result.json"):
        (run / name).write_text("[" * 100_000)
        code, _, error = invoke("predict", str(run), "none.png")
        assert (code, "damaged" in error) == (2, True), error
        shutil.copy(run / "stages.json", run / name)


def test_typed_reads_what_a_stage_writes_and_nothing_else() -> None:
    plain = {"epochs": 2, "lr": 1, "batch_size": 8}
    assert typed(Stage, plain, "stage") == Stage(2, 1.0, 8)
    assert typed(Stage, plain | {"lr": -1e30}, "stage") == Stage(2, -1e30, 8)
    for odd in (
        {"epochs": True},
        {"epochs": 2.0},
        {"lr": "1"},
        {"lr": True},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": 1e101},
        {"lr": 10**30},
        {"lr": None},
        {"more": 1},
        {SEAL: 1},
    ):
        with pytest.raises(ValueError, match="stage"):
            typed(Stage, plain | odd, "stage")
    with pytest.raises(ValueError, match="lacks 'lr'"):
        typed(Stage, {"epochs": 2, "batch_size": 8}, "stage")


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_is_not_run(
    tmp_path: Path, backbone: Backbone, digits: Dataset, stage: Stage
) -> None:
    content = io.BytesIO()
    torch.save({"key": "x", "weights": Trap(tmp_path / "sprung")}, content)
    (tmp_path / "x.ckpt").write_bytes(sealed(content.getvalue()))
    arch = Arch(lora=(1, 0, 0, 0))
    task = Task(digits, backbone.preprocess, torch.device("cpu"))
    net = build(backbone, arch, 5, stage, 0)
    with pytest.raises(RunError, match=r"x\.ckpt is damaged"):
        train(
            net, task, digits.train, stage, name="x", plan=only(arch), seed=0,
            checkpoint=tmp_path / "x.ckpt",
        )  # fmt: skip
    assert not (tmp_path / "sprung").exists()


def test_plug_ins_are_listed_with_the_package_that_brings_them(gate: None) -> None:
    code, out, _ = invoke("plugins", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {row["kind"] for row in rows} == {"strategies", "modules", "data"}
    ours = next(row for row in rows if row["name"] == "evolution")
    assert ours["from"].startswith("noahnas ")
    assert ours["code"] == "noahnas.strategies.evolution:Evolution"
    _, out, _ = invoke("plugins", "--foreign", "--json")
    assert [row["name"] for row in json.loads(out)] == ["gate"]
    assert not json.loads(out)[0]["from"].startswith("noahnas ")


@pytest.mark.parametrize("command", ["data check {}", "data check digits --backbone {}"])
def test_a_name_that_no_disk_takes_is_told_in_one_line(command: str) -> None:
    words = [sys.executable, "-m", "noahnas", *command.format("a" * 5000).split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("it is too long\n")
    assert done.stderr.count("\n") == 1
