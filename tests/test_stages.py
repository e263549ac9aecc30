"""What a recipe says of each stage: normalisation, augmentation, smoothing, images, testing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import noahnas
from noahnas import Arch, Space
from noahnas.backbone import load_backbone
from noahnas.data import Dataset, Task
from noahnas.errors import RecipeError
from noahnas.evaluate import evaluate
from noahnas.export import load_trained
from noahnas.inputs import Inputs
from noahnas.normalise import normalised
from noahnas.pipeline import start
from noahnas.policy import only
from noahnas.progress import Progress
from noahnas.recipe import Protocol, Recipe, Search, Stage, parse_recipe
from noahnas.retrain import retrain
from noahnas.train import TrainLog, build, train

from .conftest import invoke
from .test_recipe import GOOD

CPU = torch.device("cpu")
ARCH = Arch(lora=(2, 0, 0, 1))
IMAGENET = (0.485, 0.456, 0.406)


def task(digits: Dataset, name: str = "backbone") -> Task:
    return Task(digits, normalised(load_backbone("vit-digits").preprocess, name), CPU)


def test_each_stage_has_its_own_normalisation(digits: Dataset, tmp_path: Path) -> None:
    """The embedded backbone's own is ½, ½."""
    own = Stage(epochs=1, lr=2e-3, batch_size=64)
    imagenet = replace(own, normalise="imagenet")
    mixed = Recipe("r", "r", own, "paper", 2, 2, imagenet, Search(normalise="imagenet"))
    space = Space.load("tiny")
    run = tmp_path / "run"
    inputs = Inputs("digits", "vit-digits", mixed, space=space, strategy="random", probe=False)
    result = start(run, inputs)
    arch = Arch.from_dict(result["arch"])
    backbone = load_backbone("vit-digits")
    net = build(backbone, space.bind(backbone.model), 5, own, 0)
    load_trained(run / "supernet.safetensors", net)
    losses = {
        name: evaluate(net, arch, task(digits, name)).loss for name in ("imagenet", "backbone")
    }
    assert losses["imagenet"] == pytest.approx(result["val"]["loss"], abs=1e-6)
    assert losses["backbone"] != pytest.approx(result["val"]["loss"], abs=1e-4)
    tuned = noahnas.load(run)
    assert tuned.preprocess.mean == IMAGENET
    again = evaluate(tuned.net, arch, task(digits, "imagenet"), "test")
    assert again.loss == pytest.approx(result["test"]["loss"], abs=1e-6)
    other = replace(inputs, recipe=replace(mixed, supernet=imagenet))
    with pytest.raises(noahnas.NoahnasError, match="its normalisation is backbone, not imagenet"):
        start(tmp_path / "reused", replace(other, supernet=str(run)))
    start(tmp_path / "other", other)
    trained = [
        json.loads((folder / "stages.json").read_text())["supernet"]["losses"]
        for folder in (run, tmp_path / "other")
    ]
    assert trained[0] != trained[1]


def test_label_smoothing_is_part_of_the_training_loss(digits: Dataset, tmp_path: Path) -> None:
    losses = {}
    for smoothing in (0.0, 0.2):
        stage = Stage(epochs=1, lr=0.0, batch_size=200, smoothing=smoothing)
        net = build(load_backbone("vit-digits"), ARCH, 5, stage, 0)
        log = train(
            net, task(digits), digits.train, stage, name="t", plan=only(ARCH), seed=0,
            checkpoint=tmp_path / f"{smoothing}.ckpt",
        )  # fmt: skip
        ((x, y),) = digits.train.batches(200, task(digits).preprocess, CPU)
        expected = F.cross_entropy(net(x, ARCH), y, label_smoothing=smoothing).item()
        losses[smoothing] = log.losses[0]
        assert log.losses[0] == pytest.approx(expected, abs=1e-5)
    assert losses[0.0] != pytest.approx(losses[0.2], abs=1e-4)


def fitted(
    digits: Dataset, stage: Stage, path: Path, stop_after: int = 0, test_every: int = 0
) -> TrainLog | None:
    def report(progress: Progress) -> None:
        if progress.done == stop_after:
            raise KeyboardInterrupt

    try:
        return retrain(
            ARCH, load_backbone("vit-digits"), task(digits), stage, seed=0, checkpoint=path,
            report=report, test_every=test_every,
        ).log  # fmt: skip
    except KeyboardInterrupt:
        return None


def test_augmentation_is_drawn_again_alike_after_an_interruption(
    digits: Dataset, tmp_path: Path
) -> None:
    plain = Stage(epochs=3, lr=2e-3, batch_size=64)
    stage = replace(plain, augment="crop-flip", erase=0.3, mixup=0.8, cutmix=1.0)
    whole = fitted(digits, stage, tmp_path / "whole.ckpt")
    assert fitted(digits, stage, tmp_path / "cut.ckpt", stop_after=2) is None
    resumed = fitted(digits, stage, tmp_path / "cut.ckpt")
    without = fitted(digits, plain, tmp_path / "plain.ckpt")
    assert whole
    assert resumed
    assert without
    assert whole.losses == resumed.losses
    assert whole.losses[0] != without.losses[0]


def test_testing_on_the_way_changes_no_weight_and_survives_an_interruption(
    digits: Dataset, tmp_path: Path
) -> None:
    stage = Stage(epochs=5, lr=2e-3, batch_size=64, dropout=0.1)
    honest = fitted(digits, stage, tmp_path / "honest.ckpt")
    assert fitted(digits, stage, tmp_path / "cut.ckpt", stop_after=3, test_every=3) is None
    tested = fitted(digits, stage, tmp_path / "cut.ckpt", test_every=3)
    assert honest
    assert tested
    assert honest.losses == tested.losses
    assert honest.marks == ()
    assert [mark is None for mark in tested.marks] == [False, True, True, False, False]


def test_a_recipe_s_strategy_and_options_are_searched_with_unless_others_are_given(
    tmp_path: Path,
) -> None:
    text = GOOD.replace("policy: warm", "policy: paper").replace("batch_size: 8", "batch_size: 64")
    text += "search: {strategy: random, options: {prior: exact}}\n"
    (tmp_path / "r.yaml").write_text(text)
    common = [
        "search", "--recipe", str(tmp_path / "r.yaml"), "--backbone", "vit-digits", "--data",
        "digits", "--json",
    ]  # fmt: skip
    found = []
    for number, args in enumerate(([], ["--set", "prior=paper"], ["--strategy", "evolution"])):
        run = tmp_path / f"run{number}"
        code, _, error = invoke(*common, "--out", str(run), *args)
        assert code == 0, error
        inputs = json.loads((run / "run.json").read_text())["inputs"]
        found.append((inputs["strategy"], inputs["options"]))
    assert found == [
        ("random", {"prior": "exact"}),
        ("random", {"prior": "paper"}),
        ("evolution", {}),
    ]


def test_retrain_full_trains_the_backbone_s_weights(tmp_path: Path) -> None:
    (tmp_path / "arch.yaml").write_text("{}\n")
    code, printed, error = invoke(
        "retrain", "--arch", str(tmp_path / "arch.yaml"), "--full", "--data", "digits",
        "--backbone", "vit-digits", "--retrain-epochs", "1", "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert code == 0, error
    assert "vit-digits (trained whole)" in printed
    whole = sum(p.numel() for p in load_backbone("vit-digits").model.parameters())
    assert f"{whole:,} prompt" not in printed
    assert f"{whole:,} tuned" in printed


def test_every_shipped_protocol_states_each_of_its_hyper_parameters() -> None:
    for name in ("vtab-1k", "few-shot", "domain-generalisation"):
        protocol = Recipe.load(name).protocol
        assert isinstance(protocol, Protocol)
        assert protocol.name == name
        assert set(protocol.rows) == {"linear", "full", "vpt-deep", "adapter", "lora"}
        text = (Path(noahnas.__file__).parent / "recipes" / f"{name}.yaml").read_text()
        stages = [line for line in text.splitlines() if "epochs:" in line]
        assert len(stages) == 7
        for line in stages:
            for key in (
                "lr",
                "batch_size",
                "weight_decay",
                "warmup_epochs",
                "augment",
                "normalise",
            ):
                assert f"{key}:" in line, (name, line)
        for key in ("population", "top", "mutants", "crossovers", "m", "s"):
            assert key in Recipe.load(name).search.options
        assert "arXiv:2206.04673" in protocol.table


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("retrain_on: val", "r.yaml:8:13: unknown retrain on 'val'"),
        ("search: {normalise: imagnet}", "unknown normalise 'imagnet'; did you mean 'imagenet'?"),
        ("search: {options: {m: [1]}}", "search.options.m must be a plain value"),
        ("search: {strategy: 3}", "search.strategy must be text, not 3"),
        ("protocol: {name: x}", "protocol: 'rows' is missing"),
        ("protocol: {rows: {lorra: {}}}", "unknown row 'lorra'; did you mean 'lora'?"),
        ("protocol: {rows: {lora: {lr: 1}}}", "protocol.rows.lora: 'epochs' is missing"),
    ],
)
def test_a_fault_of_the_newer_sections_is_named(more: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(GOOD + more + "\n", "r.yaml")
    assert message in str(caught.value)
