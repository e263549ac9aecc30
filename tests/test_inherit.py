"""A winner that goes on from the supernet's weights, and a search by loss."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import optuna
import pytest
import torch

from noahnas import Arch, Space, Supernet
from noahnas.backbone import Backbone, load_backbone
from noahnas.errors import ArchError
from noahnas.evaluate import Result, Scores, evaluate
from noahnas.export import load_trained
from noahnas.loaded import reload
from noahnas.modules.asked import kind_of
from noahnas.registry import installed
from noahnas.retrain import inherit
from noahnas.rundir import RunDirectory
from noahnas.search import search
from noahnas.stages import SUPERNET
from noahnas.strategy import Proposal, make_strategy
from noahnas.study import Study
from tests.conftest import invoke

MODULES = sorted(installed("noahnas.modules"))
RECIPE = """\
name: heirs
description: a winner that begins with the supernet's weights
supernet: {epochs: 1, lr: 1e-2, batch_size: 64}
policy: paper
trials: 6
batch: 3
search: {by: loss}
retrain: {epochs: 1, lr: 1e-12, weight_decay: 0, batch_size: 64}
retrain_from: supernet
"""


@pytest.mark.parametrize("name", MODULES)
def test_an_heir_computes_what_its_supernet_does(name: str, backbone: Backbone) -> None:
    kind = kind_of(name)
    dims = (0, 1, 1, 1) if kind.limit == 1 else (0, 3, 1, 8)
    largest, arch = Arch(**{name: (kind.limit or 8,) * 4}), Arch(**{name: dims})
    torch.manual_seed(0)
    supernet = Supernet(load_backbone("vit-digits").model, largest, 5)
    for weight in supernet.trainable().values():
        torch.nn.init.normal_(weight, std=0.1)
    heir = Supernet(backbone.model, arch, 5)
    x = torch.randn(3, 3, 16, 16)
    wanted = supernet.eval()(x, arch)
    assert not torch.equal(heir.eval()(x, arch), wanted)
    inherit(heir, supernet.trainable())
    torch.testing.assert_close(heir(x, arch), wanted, rtol=0, atol=1e-6)


def test_what_a_supernet_has_no_weights_for_is_not_inherited(backbone: Backbone) -> None:
    supernet = Supernet(load_backbone("vit-digits").model, Arch(lora=(2, 2, 2, 2)), 5)
    heir = Supernet(backbone.model, Arch(lora=(2, 4, 2, 2)), 5)
    with pytest.raises(ArchError, match=r"no weights prompts\.lora\.1"):
        inherit(heir, supernet.trainable())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("heirs")
    (place / "heirs.yaml").write_text(RECIPE)
    code, _, err = invoke(
        "search", "--data", "digits", "--backbone", "vit-digits", "--space", "tiny",
        "--recipe", str(place / "heirs.yaml"), "--out", str(place / "run"),
    )  # fmt: skip
    assert code == 0, err
    return place / "run"


def test_a_run_retrains_from_its_supernet(run: Path) -> None:
    """At no learning rate worth the name, the winner tests as it does in the supernet."""
    loaded = reload(RunDirectory.open(run), lambda _: None)
    assert loaded.inputs.space
    net = loaded.supernet(loaded.bound(loaded.inputs.space))
    load_trained(run / SUPERNET, net)
    result = json.loads((run / "result.json").read_text())
    shared = evaluate(net, Arch.from_dict(result["arch"]), loaded.task, "test")
    assert result["test"]["loss"] == pytest.approx(shared.loss, abs=1e-5)
    assert shared.accuracy > 0.2  # of ten classes: the supernet has learned something


def test_a_run_by_loss_takes_the_arch_of_the_least(run: Path) -> None:
    loaded = reload(RunDirectory.open(run), lambda _: None)
    assert loaded.inputs.space
    entries = Study.journal(run / "study.journal", loaded.bound(loaded.inputs.space)).entries()
    losses = [entry.result.loss for entry in entries if entry.result]
    assert json.loads((run / "result.json").read_text())["val"]["loss"] == min(losses)


def test_scores_are_ranked_by_what_they_were_asked_for() -> None:
    narrow, wide = (Result(a, a, loss, 1, 1, "val") for a, loss in ((0.5, 1.0), (0.6, 2.0)))
    assert wide.rank > narrow.rank
    narrow, wide = (
        Result(a, a, loss, 1, 1, "val", by="loss") for a, loss in ((0.5, 1.0), (0.6, 2.0))
    )
    assert narrow.rank > wide.rank


def worth(space: Space, by: str, proposal: Proposal) -> Result:
    """Wider is more accurate, and worse by its loss."""
    share = sum(sum(proposal.arch.dims(name)) for name in space.parts) / 200
    return Result(share, share, 1 + share, 1, 1, "val", by=by)


@pytest.mark.parametrize("name", ["evolution", "local", "tpe", "cmaes", "predictor", "bandit"])
def test_every_strategy_follows_the_loss_if_told_to(name: str, backbone: Backbone) -> None:
    """The last third of what it proposes is narrower by loss than by accuracy."""
    space = Space.load("tiny").bind(backbone.model)
    late: dict[str, float] = {}
    for by in ("accuracy", "loss"):
        study = Study(optuna.storages.InMemoryStorage(), space)
        search(make_strategy(name, space, 0), partial(map, partial(worth, space, by)), study,
               trials=60, batch=5)  # fmt: skip
        scores = [e.result.accuracy for e in study.entries() if e.result]
        late[by] = sum(scores[40:]) / len(scores[40:])
    assert late["loss"] < late["accuracy"]


def test_scores_keep_what_they_rank_by(run: Path) -> None:
    loaded = reload(RunDirectory.open(run), lambda _: None)
    assert loaded.inputs.space
    space = loaded.bound(loaded.inputs.space)
    scores = Scores(loaded.supernet(space), loaded.task, by="loss")
    first, again = (scores([Arch()])[0] for _ in range(2))
    assert first.by == again.by == "loss"


def test_a_comparison_refuses_heirs(run: Path, tmp_path: Path) -> None:
    """Its winners are retrained once, whichever supernets they were found on."""
    code, _, told = invoke(
        "compare", "--strategies", "random", "--data", "digits", "--backbone", "vit-digits",
        "--space", "tiny", "--recipe", str(run.parent / "heirs.yaml"), "--out", str(tmp_path / "c"),
    )  # fmt: skip
    assert code == 2
    assert "retrain_from: backbone" in " ".join(told.split())
    assert not (tmp_path / "c").exists()
