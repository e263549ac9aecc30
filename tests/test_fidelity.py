"""`noahnas diagnose`: what it trains and says, and that nothing ends it but its end."""

from __future__ import annotations

import inspect
import json
import shutil
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from noahnas import Arch, Space
from noahnas.backbone import load_backbone
from noahnas.cli import diagnose as command
from noahnas.data import Dataset, Task
from noahnas.errors import RunError
from noahnas.evaluate import Result, evaluate
from noahnas.export import load_trained
from noahnas.fidelity import Alone, Diagnosis, Judged, diagnose, judge
from noahnas.fidelity.run import ARCHS
from noahnas.files import read_sealed_json, sealed_json
from noahnas.inputs import Inputs
from noahnas.pipeline import start
from noahnas.policy import only
from noahnas.progress import Progress
from noahnas.ranking import binomial_error
from noahnas.recipe import Recipe, Stage
from noahnas.report.fidelity import diagnosis_rows, diagnosis_table
from noahnas.rundir import RunDirectory
from noahnas.study import Study
from noahnas.train import build, train

from .conftest import invoke
from .processes import ended

STAGE = Stage(epochs=2, lr=4e-3, batch_size=64)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search; tests take copies of it."""
    run = tmp_path_factory.mktemp("searched") / "run"
    recipe = Recipe("quick", "for tests", STAGE, "paper", trials=9, batch=5, retrain=STAGE)
    start(run, Inputs("digits", "vit-digits", recipe, 3, space=Space.load("tiny"),
                      strategy="random", probe=False))  # fmt: skip
    return run


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "run"))


def plain(found: Diagnosis | dict[str, Any]) -> dict[str, Any]:
    """Without what a clock measured."""
    told = found if isinstance(found, dict) else found.to_dict()
    return told | {"cost": told["cost"]["passes"], "run": None}


# --- what it measures ------------------------------------------------------------------------


def test_it_sets_training_alone_beside_shared_weights_on_the_same_val_images(
    run: Path, digits: Dataset, tmp_path: Path
) -> None:
    """Both done by hand for one of the architectures, and for the winner."""
    found = diagnose(run, archs=3)
    backbone = load_backbone("vit-digits")
    task = Task(digits, backbone.preprocess, torch.device("cpu"))
    space = Space.load("tiny").bind(backbone.model)
    shared = build(load_backbone("vit-digits"), space, 5, STAGE, 3)
    load_trained(run / "supernet.safetensors", shared)
    assert found.winner
    assert found.winner.arch == Arch.load(run / "best.yaml")
    for number, judged in enumerate((found.archs[1], found.winner)):
        assert judged.shared == evaluate(shared, judged.arch, task, "val")
        alone = build(load_backbone("vit-digits"), judged.arch, 5, STAGE, 3)
        train(alone, task, digits.train, STAGE, name="alone", plan=only(judged.arch), seed=3,
              checkpoint=tmp_path / f"{number}.ckpt")  # fmt: skip
        assert [one.result for one in judged.alone] == [evaluate(alone, judged.arch, task, "val")]
    assert found.images == len(digits.val)
    assert found.error == binomial_error(found.mean, 99)
    assert found.to_dict()["cost"]["passes"] == 5 * 3 * len(digits.train) * STAGE.epochs


def test_the_architectures_are_distinct_feasible_draws_and_the_median_is_the_search_s(
    run: Path,
) -> None:
    found = diagnose(run, archs=4, epochs=1)
    space = Space.load("tiny").bind(blocks=4, width=48)
    archs = [one.arch for one in found.archs]
    assert len(set(archs)) == 4
    assert all(space.feasible(arch) for arch in archs)
    entries = Study.journal(run / "study.journal", space).entries()
    ranks = sorted(e.result.rank for e in entries if e.result and not e.repeat)
    assert found.median
    own = next(e.result for e in entries if e.result and e.proposal.arch == found.median.arch)
    assert own.rank == ranks[4]
    exact = diagnose(run, archs=4, epochs=1, prior="exact")
    assert exact.prior == "exact"
    assert {one.arch for one in exact.archs} != set(archs)


def test_more_architectures_and_seeds_train_what_is_missing_alone(run: Path) -> None:
    before = diagnose(run, archs=3, epochs=1)
    kept = {p: p.stat().st_mtime_ns for p in (run / "diagnose").glob("*-3-*.json")}
    assert len(kept) == 5
    seen: list[Progress] = []
    after = diagnose(run, archs=4, epochs=1, seeds=(3, 4), report=seen.append)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert [one.arch for one in after.archs[:3]] == [one.arch for one in before.archs]
    assert [one.alone[0] for one in after.archs[:3]] == [one.alone[0] for one in before.archs]
    assert after.archs[0].alone[0].result != after.archs[0].alone[1].result
    trained = [p for p in seen if p.stage == "alone"]
    assert (trained[0].done, trained[-1].done, trained[-1].total) == (5, 12, 12)
    assert len(trained) == 8  # how far it was, and seven trainings of one epoch


def test_a_search_that_is_not_finished_has_no_winner_to_compare(run: Path) -> None:
    stages = json.loads((run / "stages.json").read_text())
    (run / "stages.json").write_bytes(sealed_json({"supernet": stages["supernet"]}))
    found = diagnose(run, archs=3, epochs=1)
    assert found.winner is None
    assert "not finished" in found.warnings[0]
    assert len(list((run / "diagnose").glob("*-3-*.json"))) == 3


def test_what_was_drawn_once_is_kept_as_a_limit_on_latency_is_measured_anew(run: Path) -> None:
    """Nothing meets the second limit: a draw would not come to an end."""
    about = json.loads((run / "run.json").read_text())
    space = about["inputs"]["space"]
    about["inputs"]["space"] = space.replace("budget:", "budget:\n  latency: 1000ms")
    (run / "run.json").write_bytes(sealed_json(about))
    first = diagnose(run, archs=3, epochs=1)
    about["inputs"]["space"] = space.replace("budget:", "budget:\n  latency: 0.01ms")
    (run / "run.json").write_bytes(sealed_json(about))
    again = diagnose(run, archs=3, epochs=1)
    assert [one.arch for one in again.archs] == [one.arch for one in first.archs]


# --- what it says of scores ------------------------------------------------------------------


def scored(accuracy: float, loss: float = 1.0) -> Result:
    return Result(accuracy, accuracy, loss, 10, 200, "val")


def planted(
    shared: list[float], alone: list[float], winner: float = 0.9, median: float = 0.5, **other: Any
) -> Diagnosis:
    """A diagnosis of architectures with these scores, on 200 images, all of one size."""

    def one(number: int, under: float, by_itself: float) -> Judged:
        arch = Arch(lora=(number + 1, 1))
        return Judged(arch, scored(under, 1 - under), (Alone(scored(by_itself), 9, 1.0),))

    archs = [one(i, *pair) for i, pair in enumerate(zip(shared, alone, strict=True))]
    given = {"asked": len(archs), "prior": "paper", "stage": STAGE, "seeds": (0,), "images": 200}
    chosen = [one(90 + i, accuracy, accuracy) for i, accuracy in enumerate((winner, median))]
    return judge(archs, *chosen, **(given | other))


SPREAD = [0.3 + 0.04 * i for i in range(12)]


def test_scores_that_equal_training_alone_have_tau_one_and_no_warning() -> None:
    found = planted(SPREAD, SPREAD)
    for estimate in (found.kendall, found.spearman, found.by_loss):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1, 1, 1))
    assert found.warnings == ()
    assert found.ceiling is not None
    assert 0.7 < found.ceiling < 1


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (planted(SPREAD, SPREAD, winner=0.53), "winner and median of the search"),
        (planted(SPREAD, SPREAD, winner=0.4), "-10.0 points"),
        (planted([SPREAD[5 * i % 12] for i in range(12)], SPREAD), "interval of τ includes 0"),
        (planted(SPREAD[::-1], SPREAD), "in reverse"),
        (planted([0.4] * 12, SPREAD), "score the same under shared weights"),
        (planted(SPREAD, [0.4] * 12), "score the same trained alone"),
        (planted(SPREAD, [0.4 + x / 100 for x in SPREAD]), "less than the noise of val"),
        (planted(SPREAD[:9], SPREAD[:9]), "intervals of 9 architectures are rough"),
        (planted(SPREAD, SPREAD, asked=20), "hardly more than these 12"),
    ],
)
def test_it_warns_in_words(found: Diagnosis, told: str) -> None:
    assert len(found.warnings) == 1
    assert told in found.warnings[0]
    assert ("warning", found.warnings[0]) in diagnosis_rows(found.to_dict())


def test_a_supernet_must_rank_better_than_the_number_of_parameters() -> None:
    shared = [SPREAD[0], *SPREAD[2:4], SPREAD[1], *SPREAD[4:]]
    same = planted(shared, SPREAD)
    assert same.by_params.value is None
    sized = [
        replace(one, shared=replace(one.shared, params=100 + rank))
        for rank, one in enumerate(same.archs)
    ]
    rest = (same.winner, same.median)
    given = {"asked": 12, "prior": "paper", "stage": STAGE, "seeds": (0,), "images": 200}
    grown = judge(sized, *rest, **given)
    assert grown.by_params.value == pytest.approx(1)
    assert grown.kendall.value == pytest.approx(1 - 4 / 66)  # two of 66 pairs the other way
    (warning,) = grown.warnings
    assert "no worse (τ 1.00)" in warning


def test_winner_and_median_are_compared_with_the_noise_that_is_printed() -> None:
    """The error of 200 images at 52 % is 3.5 points."""
    close, apart = (planted(SPREAD, SPREAD, winner=w) for w in (0.534, 0.537))
    assert "binomial error 3.5%" in dict(diagnosis_rows(close.to_dict()))["scored on val"]
    assert len(close.warnings) == 1
    assert apart.warnings == ()


def test_agreement_is_tau_between_the_seeds_of_training_alone() -> None:
    one = planted(SPREAD, SPREAD)
    assert one.agreement is None
    other = dict(zip(SPREAD, [SPREAD[1], SPREAD[0], *SPREAD[2:]], strict=True))
    archs = [
        replace(a, alone=(*a.alone, Alone(scored(other[a.accuracy]), 9, 1.0))) for a in one.archs
    ]
    two = judge(archs, None, None, asked=12, prior="paper", stage=STAGE, seeds=(0, 1), images=200)
    assert two.agreement == pytest.approx(1 - 2 / 66)  # one of 66 pairs is the other way
    assert two.archs[0].accuracy == pytest.approx((SPREAD[0] + SPREAD[1]) / 2)


def test_the_table_and_the_json_hold_undefined_values() -> None:
    found = planted([0.4] * 12, SPREAD).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False))["kendall"]["value"] is None
    assert dict(diagnosis_rows(found))["Kendall τ"] == "undefined: all are tied"
    console = Console(width=80, file=StringIO(), record=True)
    console.print(diagnosis_table(diagnosis_rows(found), "runs/mine"))
    assert "the supernet of runs/mine" in console.export_text()


# --- the command -----------------------------------------------------------------------------

LONG = ["--archs", "3", "--epochs", "6"]


def test_killed_and_interrupted_it_ends_as_if_undisturbed(searched: Path, tmp_path: Path) -> None:
    whole, run = (Path(shutil.copytree(searched, tmp_path / name)) for name in ("whole", "run"))
    undisturbed = diagnose(whole, archs=3, epochs=6)
    folder, words = run / "diagnose", ("diagnose", str(run), *LONG)

    def trained() -> set[Path]:
        return set(folder.glob("*-3-*.json"))

    code, _, _ = ended(lambda: bool(list(folder.glob("*.ckpt"))), signal.SIGKILL, *words)
    assert code == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    (folder / ".result.json.elsewhere-1.tmp").write_text(
        "half a"
    )  # of a kill in the midst of a write
    code, out, err = ended(lambda: len(trained()) >= 2, signal.SIGINT, *words)
    assert (code, out) == (130, ""), err
    assert f"noahnas diagnose {run} {' '.join(LONG)}" in err
    assert "Traceback" not in err
    kept = {path: path.stat().st_mtime_ns for path in trained()}
    code, out, error = invoke("diagnose", str(run), *LONG, "--json")
    assert code == 0, error
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert plain(json.loads(out)) == plain(undisturbed) | {"run": None}
    assert read_sealed_json((folder / "result.json").read_bytes()) == {
        key: value for key, value in json.loads(out).items() if key != "run"
    }
    assert not [p for p in folder.iterdir() if p.suffix in (".ckpt", ".tmp")]


def test_where_output_is_piped_each_row_is_a_line(run: Path) -> None:
    code, out, error = invoke(
        "diagnose", str(run), "--archs", "3", "--epochs", "1", "--seeds", "0-1"
    )
    assert code == 0, error
    lines = out.splitlines()
    assert lines[0] == "architectures         3 feasible draws of the paper prior"
    assert lines[1] == "trained alone         on train, 1 epoch, seeds 0, 1"
    assert [line for line in lines if line.startswith("Kendall τ  ")]
    assert "intervals of 3 architectures are rough" in out


def test_the_command_s_default_is_the_function_s() -> None:
    assert inspect.signature(command).parameters["archs"].default == ARCHS
    assert inspect.signature(diagnose).parameters["archs"].default == ARCHS


def test_what_is_no_run_of_a_search_is_refused_with_the_fix(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no such directory" in refused(tmp_path / "none")
    assert "it has no run.json" in refused(tmp_path / "empty")
    with RunDirectory(run).locked():
        assert "another process is at work" in refused(run)
    about = json.loads((run / "run.json").read_text())

    def with_inputs(**changed: Any) -> None:
        (run / "run.json").write_bytes(sealed_json(about | changed))

    with_inputs(digests=about["digests"] | {"data": "another"})
    assert "the data has changed" in refused(run)
    with_inputs(device="cuda", precision="bf16")
    assert "was begun on cuda, this is cpu" in refused(run)
    with_inputs(inputs={key: about["inputs"][key] for key in about["inputs"] if key != "space"})
    assert "is a retraining and has no supernet" in refused(run)
    with_inputs()
    (run / "stages.json").unlink()
    told = refused(run)
    assert "no trained supernet yet" in told
    assert f"noahnas search --resume {run}" in told
    assert not (run / "diagnose").exists()


def refused(run: Path) -> str:
    code, _, error = invoke("diagnose", str(run), "--archs", "3")
    assert code == 2
    return error


def test_a_damaged_score_is_named(run: Path) -> None:
    diagnose(run, archs=3, epochs=1)
    damaged = next((run / "diagnose").glob("*-3-*.json"))
    damaged.write_text("{")
    with pytest.raises(RunError, match=damaged.name):
        diagnose(run, archs=3, epochs=1)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--archs", "2"], "3"),
        (["--prior", "mine"], "not one of 'paper'"),
        (["--seeds", "x"], "'x'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(args: list[str], told: str) -> None:
    code, _, error = invoke("diagnose", "run", *args)
    assert code == 2
    assert told in error


def test_from_python_too_few_architectures_and_an_unknown_prior_are_refused(run: Path) -> None:
    with pytest.raises(RunError, match="ask for 3 or more"):
        diagnose(run, archs=2)
    with pytest.raises(RunError, match="did you mean 'paper'"):
        diagnose(run, prior="papr")  # type: ignore[arg-type]
