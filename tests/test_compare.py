"""`noahnas compare`: the whole grid, its report, and that it survives interruptions."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from noahnas import Space
from noahnas.backbone import load_backbone
from noahnas.compare import plan
from noahnas.compare.glimpse import glimpsed
from noahnas.compare.importance import importance
from noahnas.compare.progress import Grid
from noahnas.compare.record import Record, Scored
from noahnas.compare.searched import affordable
from noahnas.compare.winners import agreement, random_distance, usage
from noahnas.data import Dataset, Split, Task
from noahnas.errors import StrategyError
from noahnas.evaluate import Result
from noahnas.files import read_sealed_json
from noahnas.progress import Progress
from noahnas.report.comparison import number, p_value, sheets
from noahnas.report.comparison_plots import plots
from noahnas.rundir import RunDirectory
from noahnas.space import Arch
from noahnas.study import Study

from .conftest import invoke

SMALL = [
    *("--data", "digits", "--backbone", "vit-digits", "--trials", "8"),
    *("--supernet-epochs", "2", "--retrain-epochs", "1"),
]
EVOLUTION = [
    *("--set", "evolution.population=4", "--set", "evolution.top=2"),
    *("--set", "evolution.mutants=2", "--set", "evolution.crossovers=1"),
]
GRID = [
    *("--strategies", "random,evolution", "--seeds", "0-1", "--supernet-seeds", "0-1"),
    *("--retrain-seeds", "0", *EVOLUTION, *SMALL),
]


def noahnas(*args: str) -> list[str]:
    return [sys.executable, "-m", "noahnas", "compare", *args]


def told(out: Path) -> dict[str, Any]:
    """What compare.json holds, without seconds and what was computed together."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in ("seconds", "computed")}
        return [without(v) for v in value] if isinstance(value, list) else value

    found: dict[str, Any] = without(json.loads((out / "compare.json").read_text()))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An undisturbed comparison: its directory, and what it printed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, printed, _ = invoke("compare", *GRID, "-o", str(out))
    assert code == 0
    return out, printed


# --- the report ------------------------------------------------------------------------------


def test_every_search_of_the_grid_is_a_study_of_its_own_within_both_budgets(
    whole: tuple[Path, str],
) -> None:
    out, _ = whole
    found = told(out)
    val = found["about"]["images"]["val"]
    space = Space.load("tiny").bind(blocks=4, width=48)
    assert len(found["runs"]) == 2 * 2 * 2
    for run in found["runs"]:
        place = out / "searches" / run["entrant"] / run["supernet"] / f"seed-{run['seed']}"
        entries = Study.journal(place / "study.journal", space).entries()
        best = max((e.result for e in entries if e.result), key=lambda r: (r.accuracy, -r.loss))
        assert run["val"] == {k: v for k, v in best.to_dict().items() if k != "computed"}
        assert run["evaluations"] == 8
        assert run["passes"] == 8 * val == found["about"]["passes"]
        assert Arch.load(place / "best.yaml").digest == run["digest"]


def test_what_cannot_run_is_left_out_and_who_else_takes_part_changes_nothing(
    whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "strategies", lambda: ["evolution", "ghost"])
    out, alone = whole[0], tmp_path / "alone"
    supernet = ["--supernet", str(out / "supernets" / "supernet-1")]
    args = ["--seeds", "1", *supernet, "--retrain-seeds", "none", *EVOLUTION, *SMALL]
    place = ["-o", str(alone)]
    code, _, err = invoke("compare", "--strategies", "all", *args, *place)
    assert code == 0, err
    found = told(alone)
    assert list(found["table"]) == ["evolution"]
    assert "unknown strategy 'ghost'" in found["left_out"]["ghost"]
    assert any("ghost takes no part" in note for note in found["notes"])
    assert found["tests"]["reason"] == "random takes no part"
    (own,) = found["runs"]
    (beside,) = (
        run
        for run in told(out)["runs"]
        if (run["entrant"], run["supernet"], run["seed"]) == ("evolution", "supernet-1", 1)
    )
    assert (own["digest"], own["val"]) == (beside["digest"], beside["val"])
    assert own["passes"] == beside["passes"]  # charged in full where others' were looked up
    assert found["given"] == "given this supernet"
    assert found["table"]["evolution"]["test"] is None
    assert any("One supernet" in note for note in found["notes"])
    assert any("No winner was retrained" in note for note in found["notes"])
    code, _, err = invoke("compare", "--strategies", "evolution,ghost", *args, *place)
    assert code == 2
    assert "unknown strategy 'ghost'" in err


def test_the_table_holds_means_of_the_runs_and_only_chosen_seeds_are_retrained(
    whole: tuple[Path, str],
) -> None:
    found = told(whole[0])
    for label in ("random", "evolution"):
        runs = [run for run in found["runs"] if run["entrant"] == label]
        row = found["table"][label]
        vals = [run["val"]["accuracy"] for run in runs]
        assert row["val"]["mean"] == pytest.approx(np.mean(vals))
        assert row["val"]["low"] <= row["val"]["mean"] <= row["val"]["high"]
        assert row["val_at_equal_passes"] == row["val"]
        tests = [run["test"]["accuracy"] for run in runs if run["seed"] == 0]
        assert row["test"]["mean"] == pytest.approx(np.mean(tests))
        assert row["passes"]["mean"] == found["about"]["passes"]
    assert any("Winners of seeds 0 were retrained, of 2" in note for note in found["notes"])


def test_winners_that_several_find_with_a_seed_are_retrained_once(
    whole: tuple[Path, str],
) -> None:
    found, places = told(whole[0]), whole[0] / "retrained"
    wanted = {(run["digest"], run["seed"]) for run in found["runs"] if run["seed"] == 0}
    made = {(p.parts[-3], int(p.parts[-2][5:])) for p in places.glob("*/*/retrained.json")}
    assert made == wanted


def test_too_few_seeds_never_say_that_there_is_no_difference(whole: tuple[Path, str]) -> None:
    out, printed = whole
    for rows in told(out)["tests"]["measures"].values():
        for row in rows:
            assert row["smallest_p_corrected"] == 2.0 ** (1 - row["pairs"]) > 0.05
            assert row["p"] >= row["smallest_p"]
            assert row["verdict"] == "too few seeds to tell"
    for text in (printed, (out / "compare.md").read_text()):
        assert "too few seeds to tell" in text
        assert "no difference" not in text


def test_every_output_states_the_rules_the_conditions_and_the_noise(
    whole: tuple[Path, str],
) -> None:
    out, printed = whole
    found = told(out)
    for text in (printed, (out / "compare.md").read_text()):
        for rule in found["rules"]:
            assert rule in text
        for note in found["notes"]:
            assert note in text
        for title in ("Noise floor", "Selection optimism", "over 2 supernets", "Genes that"):
            assert title in text
    assert {"torch", "optuna", "matplotlib"} <= set(found["about"]["versions"])
    assert len(found["about"]["digest"]) == 16
    assert set(found["about"]["digests"]) == {"data", "backbone"}
    floor = found["noise"]["by_supernet"]["supernet-0"]
    mean, images = floor["mean"], found["about"]["images"]["val"]
    assert floor["binomial"] == pytest.approx((mean * (1 - mean) / images) ** 0.5)


def test_plots_are_pictures_in_two_formats_and_the_same_each_time(
    whole: tuple[Path, str],
) -> None:
    out, _ = whole
    for name in ("curves", "differences", "winners", "genes"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (out / f"{name}.svg").read_bytes()
    again = plots(json.loads((out / "compare.json").read_text()))
    assert all((out / name).read_bytes() == content for name, content in again.items())


def test_curves_rise_to_the_best_val_and_agree_between_axes(whole: tuple[Path, str]) -> None:
    found = told(whole[0])
    for axis in ("evaluations", "passes"):
        for label, rows in found["curves"][axis]["entrants"].items():
            assert rows["mean"] == sorted(rows["mean"])
            assert rows["mean"][-1] == pytest.approx(found["table"][label]["val"]["mean"])
    row = found["table"]["random"]
    mean = found["curves"]["evaluations"]["entrants"]["random"]["mean"]
    assert row["area_evaluations"]["mean"] == pytest.approx(np.mean(mean))
    # Before the first pass is paid for there is nothing better than a guess.
    eighth = (found["about"]["chance"] + sum(mean[:-1])) / 8
    assert row["area_passes"]["mean"] == pytest.approx(eighth)


def test_a_finished_comparison_is_read_and_printed_as_json(whole: tuple[Path, str]) -> None:
    out, _ = whole
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("*/**/*.json")}
    before = told(out)
    code, printed, _ = invoke("compare", "--resume", str(out), "--json")
    assert code == 0
    assert json.loads(printed)["table"] == json.loads((out / "compare.json").read_text())["table"]
    assert told(out) == before
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/**/*.json")} == stamps


# --- resuming --------------------------------------------------------------------------------


def stopped_when(ready: Callable[[], bool], sign: int, *args: str) -> tuple[int, str]:
    """Start the command, send it a signal as soon as `ready`; its exit code and what it said."""
    process = subprocess.Popen(
        noahnas(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background job ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 300
    try:
        while not ready() and process.poll() is None:
            assert time.monotonic() < deadline, "what was to be interrupted never came"
            time.sleep(0.002)
        process.send_signal(sign)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, out + err


def test_killed_and_interrupted_it_ends_as_an_undisturbed_comparison(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "a b"  # the command that goes on quotes it
    first = out / "searches/random/supernet-0/seed-1/study.journal"
    code, said = stopped_when(first.exists, signal.SIGINT, *GRID, "-o", str(out))
    assert code == 130
    assert f"noahnas compare --resume '{out}'" in said
    assert "Traceback" not in said
    last = out / "searches/evolution/supernet-1/seed-1/study.journal"
    code, _ = stopped_when(last.exists, signal.SIGKILL, "--resume", str(out))
    assert code == -signal.SIGKILL
    assert not (out / "compare.json").exists()
    assert invoke("compare", *GRID, "-o", str(out))[0] == 0  # the same command goes on, too
    assert told(out) == told(whole[0])
    assert not list(out.rglob("*.ckpt"))
    assert not list(out.rglob("*.tmp"))


def test_by_workers_it_is_the_same_and_one_that_is_killed_is_begun_again(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        noahnas(*GRID, "--workers", "2", "-o", str(out)), stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    first = out / "searches/random/supernet-0/seed-0/study.journal"
    deadline = time.monotonic() + 300
    while not first.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    workers = psutil.Process(process.pid).children(recursive=True)
    victims = [w for w in workers if "ray::_done" in " ".join(w.cmdline())]
    assert victims  # one or two: the other may be about to begin, or have ended its part
    victims[0].kill()
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "winner" in error
    assert told(out) == told(whole[0])


@pytest.mark.parametrize("part", ["supernet", "winner"])
def test_a_part_at_which_an_orphaned_worker_still_works_is_left_to_it(
    whole: tuple[Path, str], tmp_path: Path, part: str
) -> None:
    out = Path(shutil.copytree(whole[0], tmp_path / "out"))
    if part == "supernet":
        (out / "searches/random/supernet-1/seed-0/search.json").unlink()
        place = out / "supernets/supernet-1"
    else:
        place = next(out.glob("retrained/*/seed-0"))
        (place / "retrained.json").unlink()
    with RunDirectory(place).locked():
        code, _, err = invoke("compare", "--resume", str(out))
    assert code == 2
    assert f"another process is at work in {place}; wait until it has ended" in err
    code, _, err = invoke("compare", "--resume", str(out))
    assert code == 0, err
    assert told(out) == told(whole[0])


def test_seeds_and_strategies_may_be_added_and_what_is_done_is_kept(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shared = ["--supernet", str(whole[0] / "supernets/supernet-0"), *SMALL, "-o", str(out)]
    none = ["--retrain-seeds", "none"]
    assert invoke("compare", "--strategies", "random", "--seeds", "0", *none, *shared)[0] == 0
    record = out / "searches/random/reused-0/seed-0/search.json"
    stamp = record.stat().st_mtime_ns
    more = ["--strategies", "random,exact=random", "--set", "exact.prior=exact", "--seeds", "0-1"]
    assert invoke("compare", *more, *none, *shared)[0] == 0
    found = told(out)
    assert record.stat().st_mtime_ns == stamp
    assert len(found["runs"]) == 4
    assert {e: v["options"] for e, v in found["about"]["entrants"].items()} == {
        "random": {},
        "exact": {"prior": "exact"},
    }
    other = [*more[:3], "exact.prior=paper", *more[4:]]
    code, _, err = invoke("compare", *other, *none, *shared)
    assert code == 2
    assert "other inputs (exact)" in err
    code, _, err = invoke("compare", *more, *none, *shared, "--trials", "9")
    assert code == 2
    assert "other inputs (recipe)" in err
    assert f"noahnas compare --resume {out}" in err


# --- who takes part --------------------------------------------------------------------------


def test_a_one_shot_strategy_pays_for_its_training_with_evaluations(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    pytest.importorskip("nni")
    out = tmp_path / "out"
    supernet = ["--supernet", str(whole[0] / "supernets/supernet-0")]
    args = ["--strategies", "random,nni,dear=nni", "--seeds", "0", "--retrain-seeds", "none"]
    epochs = ["--set", "nni.epochs=1", "--set", "dear.epochs=2"]
    code, _, err = invoke(
        "compare", *args, *supernet, *SMALL, *epochs, "--trials", "12", "-o", str(out)
    )
    assert code == 0, err
    found = told(out)
    _, run, dear = found["runs"]
    val = found["about"]["images"]["val"]
    assert run["training_passes"] > 0
    assert run["evaluations"] == (12 * val - run["training_passes"]) // val < 12
    assert run["passes"] <= found["about"]["passes"] == 12 * val < dear["passes"]
    curve = found["curves"]["passes"]["entrants"]["nni"]["mean"]
    paid = [at for at in found["curves"]["passes"]["at"] if at < run["training_passes"]]
    assert curve[: len(paid)] == [None] * len(paid)
    assert dear["evaluations"] == 1
    assert found["table"]["dear"]["val_at_equal_passes"] is None
    (row,) = (r for r in found["tests"]["measures"]["val at equal cost"] if r["label"] == "dear")
    assert "budget of passes" in row["reason"]
    assert any("dear exceeded the budget" in note for note in found["notes"])


def test_fronts_are_told_by_their_hypervolume(whole: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    supernet = ["--supernet", str(whole[0] / "supernets/supernet-0")]
    args = ["--strategies", "random,nsga2", "--seeds", "0-1", "--retrain-seeds", "none"]
    population = ["--set", "nsga2.population=4"]
    code, printed, err = invoke("compare", *args, *supernet, *SMALL, *population, "-o", str(out))
    assert code == 0, err
    found = told(out)
    (front,) = found["fronts"].values()
    volumes = [run["front"]["hypervolume"] for run in found["runs"] if run["front"]]
    assert len(volumes) == 2
    assert front["hypervolume"]["mean"] == pytest.approx(np.mean(volumes))
    assert (front["axis"], front["reference"]) == ("params", [2000.0, 2000.0])
    (line,) = (row for row in printed.splitlines() if "params" in row and "2,000" in row)
    assert line.split()[0] == "nsga2"
    assert number(front["hypervolume"], 3) in line
    assert "Fronts" not in whole[1]


def test_what_was_spent_on_training_is_not_there_for_evaluations() -> None:
    assert affordable(200, 200, 0) == 200
    assert affordable(200, 200, 15_360) == 123
    assert affordable(200, 200, 39_999) == affordable(200, 200, 50_000) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--strategies", "random,evolutoin"], "did you mean 'evolution'?"),
        (["--strategies", "random", "--set", "evolution.top=3"], "LABEL being one of random"),
        (["--strategies", "random", "--set", "top=3"], "LABEL.option=value"),
        (["--strategies", "random", "--set", "random.prio=exact"], "did you mean 'prior'?"),
        (["--strategies", "a/b=random"], "'a/b' is no label"),
        (["--strategies", "random,random"], "twice"),
        (["--seeds", "3-1"], "neither a number nor a range"),
        (["--seeds", "0-1", "--retrain-seeds", "2"], "2 is not among --seeds"),
        (["--supernet", ".", "--supernet-seeds", "0"], "either --supernet or --supernet-seeds"),
        (["--supernet", "nowhere"], "holds no trained supernet"),
        (["--budget", "many"], "--budget"),
        (["--space", "tyni"], "did you mean 'tiny'?"),
        (["--resume", "nowhere"], "there is no such directory"),
        (["--resume", "nowhere", "--seeds", "0"], "leave out --seeds"),
        (["--resume", "nowhere", "--supernet", "x", "--set", "a.b=1"], "out --supernet, --set"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_nothing_is_made(
    args: list[str], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    place = [] if "--resume" in args else ["-o", str(out), *SMALL]
    code, _, err = invoke("compare", *args, *place)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert not out.exists()


def test_another_s_directory_is_left_alone(whole: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = invoke("compare", *GRID, "-o", str(tmp_path))
    assert code == 2
    assert "exists and is not empty; choose another --out" in err
    code, _, err = invoke("compare", *GRID, "-o", str(tmp_path / "notes.txt" / "x"))
    assert code == 2
    assert "is a file" in err
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_search_command_on_a_comparison_names_the_right_one(whole: tuple[Path, str]) -> None:
    code, _, err = invoke("search", "--resume", str(whole[0]))
    assert code == 2
    assert f"noahnas compare --resume {whole[0]}" in err


# --- parts -----------------------------------------------------------------------------------


def test_one_strategy_may_take_part_twice_under_two_labels() -> None:
    plain, other = plan.entrants_of(["random", "uniform=random"], {"uniform.prior": "exact"})
    assert (plain.strategy, plain.options) == ("random", {})
    assert (other.label, other.strategy, other.options) == (
        "uniform",
        "random",
        {"prior": "exact"},
    )
    with pytest.raises(StrategyError):
        plan.entrants_of(["=random"], {})


def test_a_record_comes_back_as_it_was(whole: tuple[Path, str]) -> None:
    for path in sorted(whole[0].glob("searches/*/*/*/search.json"))[:2]:
        values = read_sealed_json(path.read_bytes())
        record = Record.from_dict(values)
        assert json.loads(json.dumps(record.to_dict())) == values
        assert record.passes == sum(values["results"]["passes"])
        scores, evaluations, spent = record.whole()
        assert evaluations == list(range(1, 9))
        assert max(scores) == record.val.accuracy
        assert spent[-1] == record.passes


def test_a_trial_on_fewer_images_is_charged_its_share_of_an_evaluation() -> None:
    def trial(digest: str, images: int | None, accuracy: float) -> Scored:
        passes = images or 200
        return Scored(digest, (), images, Result(accuracy, 0, 0, 9, passes, "val"), 0.1, 0.2)

    trials = (
        trial("a", 50, 0.9),
        trial("b", 50, 0.2),
        trial("a", None, 0.6),
        trial("b", None, 0.7),
    )
    val = trials[3].result
    record = Record(trials, 600, 5.0, Arch(), val, val, 200, False)
    assert record.whole() == ([0.6, 0.7], [1.5, 2.5], [600 + 300, 600 + 500])
    assert record.passes == 600 + 500
    assert record.seconds == pytest.approx(5 + 4 * 0.3)


def test_of_a_large_test_split_only_some_images_are_seen_under_shared_weights() -> None:
    labels = torch.arange(5000) % 2  # (5000)
    large = Split(labels.reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2).to(torch.uint8), labels)
    small = Split(large.images[:10], large.labels[:10])
    data = Dataset("made", ("even", "odd"), small, small, large)
    task = Task(data, load_backbone("vit-digits").preprocess, torch.device("cpu"), "fp32")
    part = glimpsed(task).data.test
    assert len(part) == 2000
    assert torch.equal(part.images[:, 0, 0, 0].long(), part.labels)
    assert 0.45 < part.labels.double().mean() < 0.55
    assert torch.equal(glimpsed(task).data.test.labels, part.labels)
    assert glimpsed(replace(task, data=replace(data, test=small))).data.test is small


def test_usage_counts_how_often_and_how_wide(space: Space) -> None:
    archs = [Arch(lora=(4, 0, 0, 0)), Arch(lora=(8, 2, 0, 0), vpt=(1, 0, 0, 0))]
    found = usage(space, archs)
    assert found["lora"] == {"share": [1, 0.5, 0, 0], "dim": [6, 2, 0, 0], "most": [8, 8, 8, 8]}
    assert found["vpt"]["share"] == [0.5, 0, 0, 0]
    assert found["adapter"]["dim"] == [0, 0, 0, 0]


def test_random_winners_agree_like_random_draws_and_equal_ones_fully(space: Space) -> None:
    archs = space.sample(np.random.default_rng(1), 40, prior="paper")
    random = random_distance(space)
    by_chance = agreement(space, {"a": archs[:20], "b": archs[20:]}, random)
    assert by_chance is not None
    assert 0.8 < by_chance["relative"] < 1.2
    same = agreement(space, {"a": [archs[0]] * 3}, random)
    assert same == {"steps": 0.0, "relative": 0.0, "distinct": 1, "of": 3}
    assert agreement(space, {"a": archs[:1]}, random) is None


def test_the_gene_that_decides_the_score_explains_its_variance(space: Space) -> None:
    archs = space.sample(np.random.default_rng(2), 80, prior="paper")
    at = [gene.name for gene in space.genes].index("lora.dim.0")
    scores = {tuple(v): 0.1 * v[at] for v in map(space.encode, archs)}
    found = importance(space, scores)
    assert isinstance(found, dict)
    assert max(found, key=lambda name: found[name]) == "lora.dim.0"
    assert 0.8 < found["lora.dim.0"] <= 1.001
    assert sum(found.values()) <= 1.001
    assert "too few" in str(importance(space, dict(list(scores.items())[:5])))
    assert "the same" in str(importance(space, dict.fromkeys(scores, 0.5)))


def test_figures_are_told_with_their_interval_or_without_one() -> None:
    assert number({"mean": 0.512, "low": 0.49, "high": 0.53}, 1, 100) == "51.2 [49.0, 53.0]"
    assert number({"mean": 200.0, "low": 200.0, "high": 200.0}, 0) == "200"
    assert number({"mean": 0.5, "low": None, "high": None}, 1, 100) == "50.0"
    assert number(None, 1) == "–"
    assert p_value(0.0001) == "< 0.001"


def test_progress_tells_how_much_of_the_whole_grid_is_done() -> None:
    told: list[Progress] = []
    grid = Grid(told.append, 40_000)
    first = grid.part("first", {"supernet": 4_000, "search": 6_000})
    first(Progress("supernet", 1, 2, ""))
    first(Progress("one-shot", 3, 4, ""))  # of no known share
    first(Progress("search", 5, 10, "best"))
    grid.done(10_000)
    grid.rest(10_000)  # less is left than was thought
    grid.part("second", {"retrain": 10_000})(Progress("retrain", 1, 2, ""))
    assert [(p.done, p.total) for p in told] == [(2, 40), (2, 40), (7, 40), (15, 20)]
    assert "first · search 5/10 · best" in told[2].note


def test_a_table_in_markdown_has_as_many_cells_in_every_row(whole: tuple[Path, str]) -> None:
    found = json.loads((whole[0] / "compare.json").read_text())
    for sheet in sheets(found):
        lines = [line for line in sheet.to_markdown().splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1
