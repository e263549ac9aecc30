"""A winner that is retrained for as many epochs as val says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from noahnas.backbone import load_backbone
from noahnas.cli.given import with_changes
from noahnas.data import Dataset, Task
from noahnas.epochs import as_taken, best, tried
from noahnas.errors import RecipeError
from noahnas.recipe import Recipe, parse_recipe
from noahnas.retrain import retrain
from noahnas.space import Arch
from tests.conftest import invoke
from tests.test_kill import kill_when, noahnas, trained

TRIED = (4, 12)
TEXT = """\
name: tried
description: a winner that is retrained for as many epochs as val says
supernet: {epochs: 1, lr: 1e-2, batch_size: 64}
policy: paper
trials: 6
batch: 3
retrain: {epochs: 8, lr: 1e-2, batch_size: 64, warmup_epochs: 2}
retrain_epochs: [12, 4]
"""
IMAGES = {"train": 200, "val": 99}  # of the embedded digits


def command(recipe: Path, out: Path) -> list[str]:
    return [
        *("search", "--data", "digits", "--backbone", "vit-digits", "--space", "tiny"),
        *("--recipe", str(recipe), "--out", str(out)),
    ]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("epochs") / "tried.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    code, printed, err = invoke(*command(recipe, recipe.parent / "run"))
    assert code == 0, err
    found = told(recipe.parent / "run")["epochs"]
    vals = {n: found["val"][str(n)]["accuracy"] for n in TRIED}
    assert f"{found['taken']} taken: {vals[4]:.1%} with 4, {vals[12]:.1%} with 12" in printed
    assert "epochs-4 4/4" in err
    assert "epochs-12 12/12" in err
    return recipe.parent / "run"


def told(run: Path) -> Any:
    return json.loads((run / "result.json").read_text())


def held_out(digits: Dataset, arch: Arch, out: Path, epochs: int) -> Any:
    """An arch trained on train alone for so many epochs, and scored on val."""
    backbone = load_backbone("vit-digits")
    task = Task(digits, backbone.preprocess, torch.device("cpu"))
    stage = parse_recipe(TEXT, "r").retrain.of_epochs(epochs)
    found = retrain(
        arch, backbone, task, stage, seed=0, checkpoint=out, on="train", split="val",
        name=f"epochs-{epochs}",
    )  # fmt: skip
    assert found
    return found.result.to_dict()


def test_each_number_is_tried_on_train_and_the_best_on_val_is_taken(
    run: Path, digits: Dataset, tmp_path: Path
) -> None:
    result = told(run)
    found = result["epochs"]
    arch = Arch.from_dict(result["arch"])
    for epochs in TRIED:
        again = held_out(digits, arch, tmp_path / str(epochs), epochs)
        assert found["val"][str(epochs)] == again
    assert found["val"]["4"]["accuracy"] != found["val"]["12"]["accuracy"]
    assert found["taken"] == max(TRIED, key=lambda n: found["val"][str(n)]["accuracy"])
    alone = [*("retrain", "--arch", str(run / "best.yaml"), "--data", "digits")]
    alone += [*("--backbone", "vit-digits", "--recipe", str(run.parent / "tried.yaml"))]
    out = tmp_path / "alone"
    code, _, err = invoke(*alone, "--retrain-epochs", str(found["taken"]), "--out", str(out))
    assert code == 0, err
    assert "epochs" not in told(out)
    assert told(out)["test"] == result["test"]
    ours, theirs = (load_file(place / "best.safetensors") for place in (run, out))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_the_choice_is_charged_and_leaves_no_weights(run: Path) -> None:
    cost = told(run)["cost"]
    assert cost["epochs"]["passes"] == 3 * IMAGES["train"] * sum(TRIED) + IMAGES["val"] * 2
    assert cost["epochs"]["seconds"] > 0
    both = IMAGES["train"] + IMAGES["val"]
    assert cost["retrain"]["passes"] == 3 * both * told(run)["epochs"]["taken"]
    left = {path.name for path in run.iterdir() if path.suffix in (".safetensors", ".ckpt")}
    assert left == {"supernet.safetensors", "best.safetensors"}


def test_of_equals_the_lower_loss_is_taken_then_the_fewer_epochs() -> None:
    def val(accuracy: float, loss: float) -> dict[str, float]:
        return {"accuracy": accuracy, "loss": loss}

    assert best({4: val(0.5, 0.1), 12: val(0.6, 9.0)}) == 12
    assert best({4: val(0.5, 0.2), 12: val(0.5, 0.1)}) == 12
    assert best({4: val(0.5, 0.2), 12: val(0.5, 0.2)}) == 4
    recipe = parse_recipe(TEXT, "r")
    some = {"epochs-4": {"result": val(0.5, 0.2)}}
    assert tried(recipe, some) == {}
    assert as_taken(recipe, some) == recipe
    whole = as_taken(recipe, some | {"epochs-12": {"result": val(0.6, 0.2)}})
    assert (whole.name, whole.retrain_epochs) == ("tried, changed", ())
    assert (whole.retrain.epochs, whole.retrain.warmup_epochs) == (12, 3)


def test_a_run_killed_while_it_tries_ends_as_an_undisturbed_one(
    recipe: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert kill_when(trained(out / "epochs-4.ckpt", 2), *command(recipe, out)) < 0
    assert not (out / "result.json").exists()
    go_on = ("search", "--resume", str(out))
    assert kill_when(trained(out / "epochs-12.ckpt", 5), *go_on) < 0
    stages = json.loads((out / "stages.json").read_text())
    assert "epochs-4" in stages
    assert "epochs-12" not in stages
    subprocess.run(noahnas(*go_on), check=True, capture_output=True)
    ours, theirs = told(out), told(run)
    for result in (ours, theirs):
        del result["sha256"]
        for cost in result["cost"].values():
            del cost["seconds"]
    assert ours == theirs


def test_a_winner_that_is_retrained_again_keeps_its_number_of_epochs(
    run: Path, tmp_path: Path
) -> None:
    again, other = (str(tmp_path / name) for name in ("again", "other"))
    code, _, err = invoke("retrain", str(run), "--seed", "1", "--out", again)
    assert code == 0, err
    taken = told(run)["epochs"]["taken"]
    assert f"retrain {taken}/{taken}" in err
    assert "epochs-" not in err
    code, _, err = invoke("retrain", str(run), "--data", "digits", "--out", other)
    assert code == 0, err
    assert "epochs-4 4/4" in err  # other data may need others


def test_a_diagnosis_trains_for_as_many_epochs_as_the_winner(run: Path) -> None:
    code, _, err = invoke("diagnose", str(run), "--archs", "3")
    assert code == 0, err
    taken = told(run)["epochs"]["taken"]
    logs = [json.loads(path.read_text()) for path in (run / "diagnose").glob("*.json")]
    passes = {log["passes"] for log in logs if "passes" in log}
    assert passes == {3 * IMAGES["train"] * taken, IMAGES["val"]}  # trained; scored as shared


def test_an_option_for_epochs_leaves_nothing_to_try() -> None:
    recipe = with_changes(parse_recipe(TEXT, "r"), retrain_epochs=4)
    assert recipe.retrain_epochs == ()
    assert (recipe.retrain.epochs, recipe.retrain.warmup_epochs) == (4, 1)


def test_a_comparison_retrains_all_winners_alike(recipe: Path, tmp_path: Path) -> None:
    code, _, err = invoke(
        "compare", "--strategies", "random", "--seeds", "0", "--supernet-seeds", "0",
        "--trials", "3", "--data", "digits", "--backbone", "vit-digits", "--space", "tiny",
        "--recipe", str(recipe), "--out", str(tmp_path / "c"),
    )  # fmt: skip
    assert code == 0, err
    assert "epochs-" not in err
    winners = list(tmp_path.glob("c/retrained/*/seed-0/retrained.json"))
    assert winners
    both = IMAGES["train"] + IMAGES["val"]
    assert {json.loads(path.read_text())["passes"] for path in winners} == {3 * both * 8}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[0, 4]", "r.yaml:8:18: retrain_epochs must be at least 1, not 0"),
        ("[4, 4]", "r.yaml:8:21: retrain_epochs names 4 twice"),
        ("[]", "r.yaml:8:17: retrain_epochs must name at least one value"),
        ("often", "r.yaml:8:17: retrain_epochs"),
        ("8", "r.yaml:8:17: retrain_epochs names one number; write it as retrain.epochs"),
        ("[8]", "r.yaml:8:17: retrain_epochs names one number"),
    ],
)
def test_what_cannot_be_tried_is_told(given: str, message: str) -> None:
    with pytest.raises(RecipeError) as fault:
        parse_recipe(TEXT.replace("[12, 4]", given), "r.yaml")
    assert message in str(fault.value)
    plain = parse_recipe(TEXT, "r").to_dict()
    for numbers in ([0, 4], [4]):
        with pytest.raises(ValueError, match="no several numbers of epochs"):
            Recipe.from_dict(plain | {"retrain_epochs": numbers})
