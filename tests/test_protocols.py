"""VTAB-1k through the whole command, on small data in its layout."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import noahnas
from noahnas import NoahnasError
from noahnas.backbone import load_backbone
from noahnas.cli.given import data_of
from noahnas.data import LoadOptions, load_data
from noahnas.data.vtab import TASKS
from noahnas.files import sealed_json
from noahnas.protocols.cells import Settings, cells
from noahnas.protocols.rows import parse_row
from noahnas.protocols.table import Column, Score, Table, over_seeds, published
from noahnas.recipe import Recipe
from noahnas.space import Space, format_space

from .conftest import invoke
from .protocol_data import recipe, vtab_task, write

ROWS = "linear,full,vpt-deep,adapter-2,lora-2,noah"


def accuracies(out: Path, task: str, row: str, seeds: tuple[int, ...] = (0,)) -> list[float]:
    found = [out / task / row / f"seed-{seed}" / "result.json" for seed in seeds]
    return [json.loads(path.read_text())["test"]["accuracy"] for path in found]


def column(table: dict[str, Any], row: str, whose: str = "ours") -> dict[str, Any]:
    (found,) = [c for c in table["columns"] if (c["row"], c["whose"]) == (row, whose)]
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vtab")
    for task in ("kitti", "dmlab", "patch_camelyon"):
        vtab_task(root, task, TASKS[task].classes)
    recipe(root, "vtab-1k")
    return root


@pytest.fixture(scope="module")
def ran(data: Path) -> tuple[list[str], Path, dict[str, Any]]:
    """The command, where its runs are, and what it printed as JSON."""
    out = data / "out"
    command = [
        "reproduce", "vtab-1k", "--root", str(data), "--tasks", "kitti,dmlab,patch_camelyon",
        "--recipe", str(data / "vtab-1k.yaml"), "--rows", ROWS, "--protocol", "paper",
        "--out", str(out),
    ]  # fmt: skip
    code, printed, error = invoke(*command, "--json")
    assert code == 0, error
    return command, out, json.loads(printed)


def test_vtab_1k_prints_means_of_group_means_of_the_runs_below_out(ran: Any) -> None:
    _, out, table = ran
    for row in ROWS.split(","):
        camelyon, dmlab, kitti = (
            100 * accuracies(out, task, row)[0] for task in ("patch_camelyon", "dmlab", "kitti")
        )
        ours = column(table, row)
        assert ours["tasks"]["dmlab"] == {"mean": pytest.approx(dmlab), "sd": None}
        assert ours["groups"]["structured"] == pytest.approx((dmlab + kitti) / 2)
        assert ours["mean"] == pytest.approx((camelyon + (dmlab + kitti) / 2) / 2)
    assert json.loads((out / "table.json").read_text()) == table
    assert "| Camelyon |" in (out / "table.md").read_text()


def test_baselines_try_no_epochs() -> None:
    trying = replace(Recipe.load("vtab-1k"), retrain_epochs=(2, 4))
    assert trying.protocol
    rows = tuple(parse_row(name, trying.protocol) for name in ("lora-8", "noah"))
    settings = Settings(trying, trying.protocol, rows, (0,), "vit-digits", 4, Space.load("tiny"))
    found = list(cells(settings, "digits", lambda _: "digits"))
    tried = {cell.row.name: cell.inputs.recipe.retrain_epochs for cell in found}
    assert tried == {"lora-8": (), "noah": (2, 4)}


def test_the_paper_s_table_stands_beside_ours_over_the_same_tasks(ran: Any) -> None:
    _, _, table = ran
    noah = column(table, "noah", "paper")
    assert noah["tasks"]["kitti"]["mean"] == 81.7
    assert noah["groups"] == {"specialised": 84.4, "structured": pytest.approx(65.8)}
    assert noah["mean"] == pytest.approx(75.1)
    assert [c["row"] for c in table["columns"] if c["whose"] == "paper"] == [
        "bitfit", "vpt-shallow", "linear", "full", "vpt-deep", "adapter", "lora", "noah",
    ]  # fmt: skip
    assert "arXiv:2206.04673" in " ".join(table["notes"])


def test_the_best_test_epoch_stands_beside_the_last_one_and_says_how_it_was_chosen(
    ran: Any,
) -> None:
    _, out, table = ran
    for task in ("kitti", "dmlab"):
        marks = json.loads((out / task / "noah/seed-0/stages.json").read_text())["retrain"]["marks"]
        assert [mark is None for mark in marks] == [False, True, False]  # 3 epochs, every second
        best = column(table, "noah", "ours, best test epoch")["tasks"][task]["mean"]
        assert best == pytest.approx(100 * max(m for m in marks if m is not None))
        assert marks[-1] == accuracies(out, task, "noah")[0]
    assert any(note.startswith("CHOSEN ON TEST") for note in table["notes"])


def test_a_search_is_trained_on_train800_and_its_winner_on_both(ran: Any) -> None:
    _, out, _ = ran
    about = json.loads((out / "kitti/noah/seed-0/run.json").read_text())
    assert about["images"] == {"train": 16, "val": 8, "test": 16}
    cost = json.loads((out / "kitti/noah/seed-0/result.json").read_text())["cost"]
    assert cost["supernet"]["passes"] == 3 * 16 * 2
    assert cost["search"]["passes"] == 4 * 8
    assert cost["retrain"]["passes"] == 3 * (16 + 8) * 3


def test_full_trains_the_backbone_and_is_loaded_with_the_weights_it_was_tested_with(
    ran: Any,
) -> None:
    _, out, table = ran
    whole = sum(p.numel() for p in load_backbone("vit-digits").model.parameters())
    assert column(table, "full")["params"] == whole
    assert column(table, "linear")["params"] == 0
    assert column(table, "lora-2")["params"] == 4 * 4 * 48 * 2
    tuned = noahnas.load(out / "dmlab/full/seed-0")
    before = load_backbone("vit-digits").model.state_dict()["blocks.0.attn.qkv.weight"]
    assert not torch.equal(tuned.net.backbone.blocks[0].attn.qkv.weight, before)
    task = load_data(f"vtab:{out.parent / 'dmlab'}", LoadOptions(tuned.preprocess.size))
    hits = 0
    for x, y in task.test.batches(64, tuned.preprocess, torch.device("cpu")):
        hits += int((tuned(x).argmax(1) == y).sum())
    assert hits / len(task.test) == pytest.approx(accuracies(out, "dmlab", "full")[0])


def test_the_same_command_again_trains_nothing_and_prints_the_same(ran: Any) -> None:
    command, out, table = ran
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    code, printed, told = invoke(*command, "--json")
    assert code == 0
    assert json.loads(printed) == table
    assert "[18/18] kitti/noah/seed-0 · done" in told
    assert {path: path.stat().st_mtime_ns for path in out.rglob("result.json")} == before
    assert len(before) == 18


def test_the_table_is_for_reading_and_names_its_parts(ran: Any) -> None:
    command, _, _ = ran
    code, printed, _ = invoke(*command)
    assert code == 0
    for text in ("mean, structured, 2 of 8", "mean of group means", "KITTI-Dist", "81.7", "lora-2"):
        assert text in printed
    assert "CHOSEN ON TEST" in printed


def test_a_dry_run_says_what_is_to_do_and_does_nothing(ran: Any) -> None:
    command, out, _ = ran
    code, printed, error = invoke(*command, "--dry-run", "--seeds", "0-1", "--json")
    assert code == 0, error
    states = json.loads(printed)
    assert (len(states), list(states.values()).count("done")) == (36, 18)
    assert states["kitti/noah/seed-1"] == "to do"
    assert not (out / "kitti/noah/seed-1").exists()


def test_a_budget_may_count_the_classifier(data: Path, tmp_path: Path) -> None:
    text = format_space(Space.load("tiny")).replace("2000", "{max: 2100, head: true}")
    (tmp_path / "head.yaml").write_text(text)
    code, printed, error = invoke(
        "reproduce", "vtab-1k", "--root", str(data), "--recipe", str(data / "vtab-1k.yaml"),
        "--tasks", "kitti", "--rows", "noah", "--space", str(tmp_path / "head.yaml"),
        "--out", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert code == 0, error
    code, _, error = invoke(
        "reproduce", "vtab-1k", "--root", str(data), "--recipe", str(data / "vtab-1k.yaml"),
        "--tasks", "kitti,dmlab", "--rows", "noah", "--space", str(tmp_path / "head.yaml"),
        "--out", str(tmp_path / "both"), "--budget", "230",
    )  # fmt: skip
    assert code == 2
    assert "the head alone has 294 of the 230 parameters" in " ".join(
        error.replace("│", " ").split()
    )
    assert not (tmp_path / "both").exists()
    head = TASKS["kitti"].classes * (48 + 1)
    assert 0 < column(json.loads(printed), "noah")["params"] <= 2100 - head


def test_where_it_is_too_wide_the_paper_s_columns_stand_above_ours(
    ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, _, _ = ran
    printed = {}
    for width in ("70", "100", "250"):
        monkeypatch.setattr("rich.console.Console.is_terminal", True)
        monkeypatch.setenv("COLUMNS", width)
        _, printed[width], _ = invoke(*command)
    for kind in ("paper", "ours"):
        title = f"vtab-1k: Table 1 of a paper · {kind}"
        assert title in printed["100"]
        assert title not in printed["250"]
    assert printed["250"].count("KITTI-Dist") == 1
    assert printed["100"].count("KITTI-Dist") > 1
    for text in ("vpt-shallow", "adapter-2", "best test epoch", "mean, structured, 2 of 8"):
        assert text in printed["70"]
    assert "…" not in printed["70"]


def test_runs_with_other_inputs_are_not_taken_for_this_table(ran: Any) -> None:
    command, _, _ = ran
    code, _, error = invoke(*[word for word in command if word not in ("--protocol", "paper")])
    assert code == 2
    assert "was begun with other inputs (test_every); choose another --out" in error


def test_honest_tests_once_and_shows_no_best_epoch(data: Path, tmp_path: Path) -> None:
    code, printed, error = invoke(
        "reproduce", "vtab-1k", "--root", str(data), "--tasks", "kitti", "--rows", "linear",
        "--recipe", str(data / "vtab-1k.yaml"), "--seeds", "0-1", "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert code == 0, error
    table = json.loads(printed)
    assert {c["whose"] for c in table["columns"]} == {"paper", "ours"}
    assert not any("CHOSEN" in note for note in table["notes"])
    both = [100 * a for a in accuracies(tmp_path, "kitti", "linear", (0, 1))]
    assert column(table, "linear")["tasks"]["kitti"] == {
        "mean": pytest.approx(statistics.fmean(both)),
        "sd": pytest.approx(statistics.stdev(both)),
    }
    stages = json.loads((tmp_path / "kitti/linear/seed-0/stages.json").read_text())
    assert stages["retrain"]["marks"] == []


def test_a_task_s_other_directory_name_is_found(tmp_path: Path) -> None:
    vtab_task(tmp_path, "oxford_pet", 37, (1, 1, 1))
    recipe(tmp_path, "vtab-1k")
    code, printed, error = invoke(
        "reproduce", "vtab-1k", "--root", str(tmp_path), "--tasks", "oxford_iiit_pet", "--rows",
        "linear", "--recipe", str(tmp_path / "vtab-1k.yaml"), "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert code == 0, error
    assert (
        column(json.loads(printed), "linear", "paper")["tasks"]["oxford_iiit_pet"]["mean"] == 86.3
    )


def test_a_published_split_may_leave_a_class_out_of_train(tmp_path: Path) -> None:
    folder = vtab_task(tmp_path, "kitti", 4)
    for name in ("train800", "val200", "train800val200"):
        lines = (folder / f"{name}.txt").read_text().splitlines()
        write(folder / f"{name}.txt", [line for line in lines if not line.endswith(" 2")])
    found = load_data(f"vtab:{folder}", LoadOptions((16, 16)))
    assert len(found.classes) == 4
    assert 2 not in found.train.labels
    assert 2 in found.test.labels


def _cut(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: (d / "val200.txt").unlink(), "kitti lacks val200.txt"),
        (lambda d: _cut(d, "test.txt", ".png 1", ".png 4"), "test.txt:2: the label 4 is not in"),
        (lambda d: _cut(d, "test.txt", ".png 1", ".png -1"), "test.txt:2: the label '-1' is no"),
        (lambda d: _cut(d, "test.txt", ".png 1", ".png"), "is not 'path label'"),
        (lambda d: _cut(d, "test.txt", "images/test/000001", "../test/1"), "leads out of"),
        (lambda d: _cut(d, "test.txt", "images/test/000001", "/etc/1"), "the path '/etc/1.png'"),
        (lambda d: (d / "images/test/000003.png").unlink(), "test.txt:4: there is no image"),
        (lambda d: _cut(d, "test.txt", "1.png 1", "0.png 1"), "has the label 0 above and 1 here"),
        (lambda d: write(d / "val200.txt", []), "val200.txt is empty"),
        (lambda d: _cut(d, "train800val200.txt", ".png 1", ".png 0"), "not of one download"),
        (lambda d: (d / "images/val200/000001.png").write_bytes(b"no"), "1 unreadable image: "),
    ],
)  # fmt: skip
def test_a_fault_of_the_lists_is_named_before_anything_is_trained(
    harm: Any, message: str, tmp_path: Path
) -> None:
    vtab_task(tmp_path, "patch_camelyon", 2)
    harm(vtab_task(tmp_path, "kitti", 4))
    recipe(tmp_path, "vtab-1k")
    out = tmp_path / "out"
    code, _, error = invoke(
        "reproduce", "vtab-1k", "--root", str(tmp_path), "--tasks", "kitti", "--rows", "linear",
        "--recipe", str(tmp_path / "vtab-1k.yaml"), "--out", str(out),
    )  # fmt: skip
    assert code == 2
    assert message in error
    assert not list(out.rglob("run.json"))


def test_an_unreadable_image_is_skipped_when_asked(tmp_path: Path) -> None:
    folder = vtab_task(tmp_path, "kitti", 4)
    (folder / "images/train800/000001.png").write_bytes(b"no")
    recipe(tmp_path, "vtab-1k")
    code, _, error = invoke(
        "reproduce", "vtab-1k", "--root", str(tmp_path), "--tasks", "kitti", "--rows", "linear",
        "--recipe", str(tmp_path / "vtab-1k.yaml"), "--out", str(tmp_path), "--on-error", "skip",
    )  # fmt: skip
    assert code == 0, error
    about = json.loads((tmp_path / "kitti/linear/seed-0/run.json").read_text())
    assert about["images"]["train"] == 15


def test_lists_of_another_task_are_told_by_their_labels(tmp_path: Path) -> None:
    vtab_task(tmp_path, "dmlab", 4)
    with pytest.raises(NoahnasError, match="DMLab has 6 classes, but the lists' labels end at 3"):
        load_data(f"vtab:{tmp_path / 'dmlab'}", LoadOptions((16, 16)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tasks", "kity"], "unknown VTAB-1k task 'kity'; did you mean 'kitti'?"),
        (["--tasks", "svhn"], "has no directory svhn"),
        (["--tasks", "kitti", "--rows", "adapter"], "unknown row 'adapter'"),
        (["--tasks", "kitti", "--rows", "full-3"], "unknown row 'full-3'"),
        (["--tasks", "kitti", "--recipe", "default"], "has no section 'protocol'"),
        (["--tasks", "kitti", "--recipe", "few-shot"], "with name: vtab-1k"),
        (["--tasks", "kitti", "--space", "noah-vtab"], "exceeds the backbone's 4 blocks"),
        (["--tasks", "kitti", "--budget", "10"], "no architecture meets the budget"),
        (["--tasks", "kitti", "--budget", "ten"], "is not a count"),
        (["--tasks", "kitti", "--seeds", "2-1"], "neither a number nor a range"),
        (["--tasks", "kitti", "--seeds", "0-99999999999"], "is more than 1000 numbers"),
        (["--tasks", "kitti", "--protocol", "best"], "honest or paper"),
        (["--tasks", "kitti,kitti"], "something twice"),
    ],
)
def test_a_wrong_option_is_named(args: list[str], message: str, data: Path, tmp_path: Path) -> None:
    own = [] if "--recipe" in args else ["--recipe", str(data / "vtab-1k.yaml")]
    out = ["--out", str(tmp_path / "out")]
    code, _, error = invoke("reproduce", "vtab-1k", "--root", str(data), *own, *out, *args)
    assert code == 2
    assert message in " ".join(error.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_killed_and_interrupted_it_goes_on_to_what_an_undisturbed_command_finds(
    data: Path, tmp_path: Path
) -> None:
    slow = (data / "vtab-1k.yaml").read_text()
    slow = slow.replace("retrain: {epochs: 3", "retrain: {epochs: 40").replace(
        "test_every: 2", "test_every: 7"
    )
    (tmp_path / "slow.yaml").write_text(slow)

    def command(out: str) -> list[str]:
        return [
            "reproduce", "vtab-1k", "--root", str(data), "--tasks", "kitti", "--recipe",
            str(tmp_path / "slow.yaml"), "--rows", "linear,noah", "--protocol", "paper", "--out",
            str(tmp_path / out), "--threads", "1",
        ]  # fmt: skip

    def stopped(sign: signal.Signals) -> tuple[int, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "noahnas", *command("cut")],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        checkpoint = tmp_path / "cut/kitti/noah/seed-0/retrain.ckpt"
        seen = checkpoint.read_bytes() if checkpoint.exists() else b""
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists() and checkpoint.read_bytes() != seen:
                process.send_signal(sign)
                break
            time.sleep(0.002)
        _, error = process.communicate(timeout=60)
        return process.returncode, error

    assert stopped(signal.SIGKILL)[0] == -signal.SIGKILL
    code, error = stopped(signal.SIGINT)
    assert code == 130
    assert f"--out {tmp_path / 'cut'}" in error
    assert "Traceback" not in error
    assert not (tmp_path / "cut/kitti/noah/seed-0/result.json").exists()
    assert "kitti/noah/seed-0: begun" in invoke(*command("cut"), "--dry-run")[1]
    found = {}
    for out in ("cut", "whole"):
        code, printed, error = invoke(*command(out), "--json")
        assert code == 0, error
        found[out] = json.loads(printed)["columns"]
    assert found["cut"] == found["whole"]
    marks = [
        json.loads((tmp_path / out / "kitti/noah/seed-0/stages.json").read_text())["retrain"][
            "marks"
        ]
        for out in ("cut", "whole")
    ]
    assert marks[0] == marks[1]
    assert len(marks[0]) == 40


# --- going on where data has changed --------------------------------------------------------


def _short(root: Path, out: Path, rows: str, *more: str) -> tuple[int, str, str]:
    return invoke(
        "reproduce", "vtab-1k", "--root", str(root), "--tasks", "kitti", "--recipe",
        str(root / "vtab-1k.yaml"), "--rows", rows, "--out", str(out), *more,
    )  # fmt: skip


def test_rows_are_not_added_to_a_table_of_other_images(tmp_path: Path) -> None:
    folder, out = vtab_task(tmp_path, "kitti", 4), tmp_path / "out"
    recipe(tmp_path, "vtab-1k")
    code, _, error = _short(tmp_path, out, "linear,lora-2")
    assert code == 0, error
    image = folder / "images/train800/000001.png"
    kept, stamp = image.read_bytes(), image.stat().st_mtime_ns
    image.write_bytes((folder / "images/test/000001.png").read_bytes())
    for seeds in ("0", "0-1"):
        code, _, error = _short(tmp_path, out, "linear,lora-2,adapter-2", "--seeds", seeds)
        assert code == 2
        assert "the data has changed since these runs of" in error
        assert "kitti/linear/seed-0, kitti/lora-2/seed-0;" in error
        assert not (out / "kitti/adapter-2").exists()
        assert not (out / "kitti/linear/seed-1").exists()
    image.write_bytes(kept)
    os.utime(image, ns=(stamp, stamp))
    code, _, error = _short(tmp_path, out, "linear,lora-2,adapter-2")
    assert code == 0, error


def test_finished_runs_on_different_images_make_no_table(tmp_path: Path) -> None:
    folder, out = vtab_task(tmp_path, "kitti", 4), tmp_path / "out"
    recipe(tmp_path, "vtab-1k")
    assert _short(tmp_path, out, "linear")[0] == 0
    image = folder / "images/train800/000001.png"
    image.write_bytes((folder / "images/test/000001.png").read_bytes())
    assert _short(tmp_path, out, "lora-2")[0] == 0
    for more in ([], ["--dry-run"]):
        code, _, error = _short(tmp_path, out, "linear,lora-2", *more)
        assert code == 2
        assert "not made with the same data: kitti/linear/seed-0 | kitti/lora-2/seed-0" in error


def test_rows_are_not_added_to_a_table_of_another_backbone(data: Path, tmp_path: Path) -> None:
    assert _short(data, tmp_path, "linear,lora-2")[0] == 0
    path = tmp_path / "kitti/linear/seed-0/run.json"
    about = json.loads(path.read_text())
    about["digests"]["backbone"] = "0" * 16
    path.write_bytes(sealed_json(about))
    code, _, error = _short(data, tmp_path, "linear,lora-2")
    assert code == 2
    assert "not made with the same backbone: kitti/linear/seed-0 | kitti/lora-2/seed-0" in error
    code, _, error = _short(data, tmp_path, "linear,adapter-2")
    assert code == 2
    assert "the backbone has changed since these runs of" in error
    assert not (tmp_path / "kitti/adapter-2").exists()


def test_what_a_kill_in_the_very_first_write_leaves_is_cleared(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "kitti/linear/seed-0"
    script = (
        "import os, pathlib, sys; from noahnas.files import write_atomic; "
        "os.replace = pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9); "
        "write_atomic(pathlib.Path(sys.argv[1]), b'{')"
    )
    run.mkdir(parents=True)
    killed = subprocess.run([sys.executable, "-c", script, str(run / "run.json")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(run.iterdir())) == 1
    code, _, error = _short(data, tmp_path, "linear")
    assert code == 0, error
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_file_where_runs_should_go_is_named(data: Path, tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/below/it"):
        code, _, error = _short(data, out, "linear", *more)
        assert code == 2
        assert f"{tmp_path / 'file'} is a file, so runs cannot be kept in {out};" in error
    assert (tmp_path / "file").read_text() == "mine"


# --- the table alone ------------------------------------------------------------------------


def test_groups_weigh_alike_and_a_missing_figure_makes_no_mean() -> None:
    groups = {"one": {"a": "A"}, "two": {"b": "B", "c": "C", "d": "D"}}
    scores = {"a": Score(10.0), "b": Score(40.0), "c": Score(50.0), "d": Score(60.0)}
    whole, part = Column("x", "ours", scores), Column("y", "paper", scores | {"c": None})
    table = Table("t", groups, (whole, part), "mean")
    assert table.mean_of_groups(whole) == 30.0
    assert table.mean_of_groups(part) is None
    assert part.group_mean(["b", "d"]) == 50.0
    (label, texts, _) = table.lines()[2]
    assert (label, texts) == ("C", ["50.0", "–"])


def test_seeds_give_a_mean_and_a_standard_deviation_in_percent() -> None:
    assert str(over_seeds([0.5, 0.6])) == "55.0 ± 7.1"
    assert str(over_seeds([0.5])) == "50.0"
    assert over_seeds([]) is None


def test_published_rows_have_a_figure_for_each_task_and_their_papers_means() -> None:
    """The means that NOAH and VPT state: 75.5, 74.5, 73.9 and 69.0 within rounding."""
    groups: dict[str, dict[str, str]] = {}
    for name, task in TASKS.items():
        groups.setdefault(task.group, {})[name] = task.title
    assert [len(tasks) for tasks in groups.values()] == [7, 4, 8]
    paper = published("vtab-1k")
    table = Table("t", groups, tuple(paper.values()), "mean")
    means = {row: table.mean_of_groups(found) for row, found in paper.items()}
    assert means["noah"] == pytest.approx(75.5, abs=0.1)
    assert means["lora"] == pytest.approx(74.5, abs=0.11)
    assert means["adapter"] == pytest.approx(73.9, abs=0.1)
    assert means["full"] == pytest.approx(69.0, abs=0.1)
    assert all(score is not None for found in paper.values() for score in found.scores.values())


def test_a_row_is_an_architecture_of_one_module_in_every_block() -> None:
    protocol = Recipe.load("vtab-1k").protocol
    assert protocol is not None
    assert parse_row("adapter-8", protocol).arch(3) == noahnas.Arch(adapter=(8, 8, 8))
    assert parse_row("vpt-deep", protocol).arch(2) == noahnas.Arch(vpt=(50, 50))
    assert parse_row("vpt-deep-5", protocol).arch(2) == noahnas.Arch(vpt=(5, 5))
    assert parse_row("linear", protocol).arch(2) == noahnas.Arch()
    assert parse_row("noah", protocol).searched


def test_a_place_in_a_spec_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_of("vtab:pets") == f"vtab:{tmp_path / 'pets'}"
    assert data_of("few-shot:pets,shots=2") == f"few-shot:{tmp_path / 'pets'},shots=2"
    assert data_of("few-shot:folder:pets,shots=2") == f"few-shot:folder:{tmp_path / 'pets'},shots=2"
    assert data_of("few-shot:digits,shots=2") == "few-shot:digits,shots=2"


def test_a_place_may_hold_commas_and_what_is_no_path_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my,dir/annotations", "some,images", "owner/pets", "digits"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    same = [
        "wds/pets:https://example.org/pets", "wds/pets:pipe:cat pets.tar", "hfds/owner/cats",
        "few-shot:digits,shots=2", "few-shot:nosuch,shots=2,way=5", "few-shot:", "torch/cifar10",
    ]  # fmt: skip
    made = {
        "my,dir": f"{tmp_path}/my,dir",
        "vtab:my,dir/kitti": f"vtab:{tmp_path}/my,dir/kitti",
        "few-shot:my,dir,shots=2,seed=1": f"few-shot:{tmp_path}/my,dir,shots=2,seed=1",
        "few-shot:some,images": f"few-shot:{tmp_path}/some,images",
        "few-shot:folder:some,images,seed=1": f"few-shot:folder:{tmp_path}/some,images,seed=1",
        "domains:my,dir,target=imagenet": f"domains:{tmp_path}/my,dir,target=imagenet",
        "hfds/owner/pets": f"hfds/{tmp_path}/owner/pets",
        "few-shot:hfds/owner/pets,shots=2": f"few-shot:hfds/{tmp_path}/owner/pets,shots=2",
        "hfds/owner/pets:my,dir": f"hfds/{tmp_path}/owner/pets:{tmp_path}/my,dir",
        "wds/pets:owner": f"wds/pets:{tmp_path}/owner",
    }
    for spec, found in [*zip(same, same, strict=True), *made.items()]:
        assert data_of(spec) == found
        assert data_of(found) == found
