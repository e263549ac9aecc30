from __future__ import annotations

from dataclasses import replace

import pytest

from noahnas import Arch, Supernet
from noahnas.backbone import load_backbone
from noahnas.errors import RecipeError
from noahnas.protocols.cells import at_rate
from noahnas.recipe import Recipe, Stage, parse_recipe

GOOD = """\
name: x
description: y
supernet: {epochs: 1, lr: 2e-3, batch_size: 8}
policy: warm
trials: 3
batch: 2
retrain: {epochs: 1, lr: 0.5, batch_size: 8, warmup_epochs: 0}
"""


def test_the_paper_s_recipe_holds_the_paper_s_numbers() -> None:
    paper = Recipe.load("vtab-1k")
    assert (paper.supernet.epochs, paper.supernet.lr, paper.supernet.batch_size) == (500, 5e-4, 64)
    assert (paper.retrain.epochs, paper.retrain.lr) == (100, 1e-3)
    assert (paper.supernet.drop_path, paper.supernet.dropout) == (0.1, 0.1)
    assert paper.trials == 800


@pytest.mark.parametrize(
    "name", ["default", "demo", "vtab-1k", "few-shot", "domain-generalisation"]
)
def test_a_recipe_survives_run_json(name: str) -> None:
    recipe = Recipe.load(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.name == name


@pytest.mark.parametrize(
    ("name", "measured"),
    [("default", "micro-vtab-decay"), ("demo", "micro-vtab-small-batch")],
)
def test_what_searches_follow_has_been_measured(name: str, measured: str) -> None:
    """But for the protocol, which tells a table what to do, and rates on wider backbones."""
    other = replace(Recipe.load(measured), protocol=None)
    ours = replace(Recipe.load(name), name=other.name, description=other.description)
    assert ours.supernet.lr_width == Supernet(load_backbone("vit-nano").model, Arch(), 10).width
    assert replace(ours, supernet=replace(ours.supernet, lr_width=0)) == other


def test_a_rate_falls_with_the_square_of_the_width_beyond_the_one_it_is_for() -> None:
    stage = Stage(1, 1.2e-2, 64, lr_width=128)
    assert stage.on_width(384).lr == pytest.approx(1.2e-2 / 9)
    assert stage.on_width(384).on_width(768) == stage.on_width(384)  # once is enough
    everywhere = Stage(1, 1.2e-2, 64)
    for width in (128, 48):
        assert stage.on_width(width) == everywhere
    assert everywhere.on_width(768) == everywhere


def test_a_rate_s_width_is_read_and_must_be_one() -> None:
    at = GOOD.replace("lr: 0.5,", "lr: 0.5, lr_width: 128,")
    recipe = parse_recipe(at, "r.yaml")
    assert (recipe.supernet.lr_width, recipe.retrain.lr_width) == (0, 128)
    with pytest.raises(RecipeError, match=r"r\.yaml:7:41: retrain\.lr_width must be at least 0"):
        parse_recipe(at.replace("128", "-1"), "r.yaml")
    wrong = replace(recipe, retrain=replace(recipe.retrain, lr_width=-1)).to_dict()
    with pytest.raises(ValueError, match="no backbone is -1 wide"):
        Recipe.from_dict(wrong)
    assert at_rate(recipe, 1e-3).retrain.on_width(768).lr == 1e-3


def test_fewer_epochs_warm_up_for_a_quarter_of_them_at_most_and_more_for_the_same_share() -> None:
    stage = Recipe.load("vtab-1k").supernet
    assert stage.warmup_epochs == 10
    assert stage.of_epochs(8).warmup_epochs == 2
    assert stage.of_epochs(2).warmup_epochs == 0
    assert stage.of_epochs(100).warmup_epochs == 10
    assert stage.of_epochs(2000).warmup_epochs == 40
    assert Stage(35, 1e-3, 64, warmup_epochs=7).of_epochs(145).warmup_epochs == 29
    assert Stage(8, 1e-3, 64, warmup_epochs=4).of_epochs(8).warmup_epochs == 4  # nothing changes


def test_a_recipe_file_is_read() -> None:
    recipe = parse_recipe(GOOD, "r.yaml")
    assert (recipe.supernet.lr, recipe.retrain.lr, recipe.trials) == (2e-3, 0.5, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trials: 3", "trials: 0"), "r.yaml:5:9: trials must be at least 1, not 0"),
        (
            ("epochs: 1, lr: 2e-3", "epoch: 1, lr: 2e-3"),
            "r.yaml:3:12: unknown key 'epoch'; did you",
        ),
        (("lr: 0.5", "lr: fast"), "r.yaml:7:26: retrain.lr must be a number, not 'fast'"),
        (("batch: 2\n", ""), "'batch' is missing"),
        (
            ("policy: warm", "policy: wram"),
            "r.yaml:4:9: unknown policy 'wram'; did you mean 'warm'?",
        ),
        (("warmup_epochs: 0", "dropout: 1.5"), "retrain.dropout must be below 1, not 1.5"),
        (("warmup_epochs: 0", "warmup_epochs: 1"), "warmup_epochs must be fewer than epochs"),
        ((GOOD.splitlines()[-1], "retrain: 3"), "a mapping"),
    ],
)
def test_a_fault_is_named_with_line_and_column(change: tuple[str, str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(GOOD.replace(*change), "r.yaml")
    assert message in str(caught.value)
