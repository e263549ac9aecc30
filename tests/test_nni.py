"""NNI's real one-shot methods on a real supernet."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from noahnas import Arch, Space, Supernet
from noahnas.backbone import Backbone, Family
from noahnas.data import Dataset, Task
from noahnas.errors import StrategyError
from noahnas.progress import Progress
from noahnas.relax import expected_params
from noahnas.space import Budget, Choices, ModuleSpace
from noahnas.strategies.nni_oneshot import NNIOneShot
from noahnas.strategies.nni_space import model_space
from noahnas.strategy import make_strategy

from .test_strategies import supernet

ATTRIBUTES = {
    "adapter": ModuleSpace(
        (0, 2, 4),
        (2, "all"),
        attributes={"placement": Choices(("mlp", "mlp-parallel", "attention"), "pairs")},
    ),
    "lora": ModuleSpace(
        (0, 1, 4),
        attributes={"targets": ("qkv", "q+v", "fc1+fc2"), "alpha": Choices((None, 4), "pairs")},
    ),
    "vpt": ModuleSpace((0, 1, 3), tie="pairs", attributes={"init": ("xavier", "normal")}),
}
RULES = ["at most 2 modules per block", "if vpt.dim >= 3 then vpt.init == normal"]


@pytest.mark.parametrize("method", ["gumbel", "darts", "spos"])
def test_nni_chooses_among_the_choices_of_each_gene(method: str) -> None:
    space = Space("s", ATTRIBUTES, blocks=4, width=48)
    found = model_space(space, method, 0)
    free = [gene for gene in space.genes if len(gene.choices) > 1]
    assert {g.attribute for g in free} == {"dim", "targets", "alpha", "placement", "init", "depth"}
    assert len(found.simplify()) == len(free)
    if method == "spos":
        found.resample(0)
        assert all(found()[gene.name] in gene.choices for gene in space.genes)
        return
    for weights in (found(), found.probabilities()):
        assert {gene: tuple(given) for gene, given in weights.items()} == {
            gene.name: gene.choices for gene in space.genes
        }
        sums = [torch.stack(list(given.values())).sum().item() for given in weights.values()]
        assert sums == pytest.approx([1.0] * len(space.genes))


def trained(method: str, folder: Path, space: Space, **options: float) -> NNIOneShot:
    strategy = NNIOneShot(space, 0, method=method, **options)  # type: ignore[arg-type]
    strategy.begin(*supernet(space), folder / "nni.ckpt")
    return strategy


@pytest.mark.parametrize("method", ["gumbel", "darts", "spos"])
def test_each_method_proposes_feasible_archs_and_charges_what_it_spends(
    method: str, space: Space, tmp_path: Path
) -> None:
    net, task = supernet(space)
    before = {k: v.clone() for k, v in net.trainable().items()}
    passes = 0

    def count(images: int, factor: int) -> None:
        nonlocal passes
        passes += images * factor

    def counted(strategy: NNIOneShot) -> tuple[int, float]:
        """Count images where the copy computes: with gradients 3 passes, without 1."""
        original = Family.embed

        def embed(self: Family, images: Tensor) -> tuple[Tensor, Any]:
            count(len(images), 3 if torch.is_grad_enabled() else 1)
            return original(self, images)

        Family.embed = embed  # type: ignore[method-assign]
        try:
            return strategy.begin(net, task, tmp_path / "nni.ckpt")
        finally:
            Family.embed = original  # type: ignore[method-assign]

    strategy = NNIOneShot(space, 0, method=method, epochs=2)  # type: ignore[arg-type]
    charged, seconds = counted(strategy)
    assert charged == passes
    assert seconds > 0
    assert all(torch.equal(before[k], v) for k, v in net.trainable().items())  # a copy was trained
    archs = [p.arch for p in strategy.ask(12)]
    assert len(set(archs)) == 12
    assert all(space.feasible(arch) for arch in archs)


@pytest.mark.parametrize("method", ["gumbel", "darts", "spos"])
def test_begun_again_it_goes_on_where_its_checkpoint_stands(
    method: str, space: Space, tmp_path: Path
) -> None:
    class Died(Exception):  # noqa: N818
        pass

    def die(progress: Progress) -> None:
        if progress.done == 2:
            raise Died

    whole = NNIOneShot(space, 0, method=method, epochs=4)  # type: ignore[arg-type]
    whole.begin(*supernet(space), tmp_path / "whole")
    with pytest.raises(Died):
        NNIOneShot(space, 0, method=method, epochs=4).begin(  # type: ignore[arg-type]
            *supernet(space), tmp_path / "cut", die
        )
    resumed = NNIOneShot(space, 0, method=method, epochs=4)  # type: ignore[arg-type]
    seen: list[int] = []
    resumed.begin(*supernet(space), tmp_path / "cut", lambda p: seen.append(p.done))
    assert seen == [3, 4]
    assert resumed.ask(20) == whole.ask(20)


def test_a_greater_penalty_expects_fewer_parameters(space: Space, tmp_path: Path) -> None:
    tight = space.with_budget(800)

    def expected(penalty: float) -> float:
        strategy = NNIOneShot(tight, 0, method="darts", epochs=8, penalty=penalty)
        strategy.begin(*supernet(space), tmp_path / str(penalty))
        with torch.no_grad():
            return float(expected_params(tight, strategy._space.probabilities()))

    assert expected(10.0) < 0.9 * expected(0.0)


def test_training_moves_the_probabilities_of_every_module(space: Space, tmp_path: Path) -> None:
    with torch.no_grad():
        before = NNIOneShot(space, 0)._space.probabilities()
    strategy = trained("gumbel", tmp_path, space, epochs=10, penalty=0.0)
    with torch.no_grad():
        after = strategy._space.probabilities()
    moved = {
        gene: max(abs(float(w - before[gene][k])) for k, w in choices.items())
        for gene, choices in after.items()
    }
    for module in space.modules:
        assert max(v for gene, v in moved.items() if gene.startswith(module)) > 0.05, module


def test_a_checkpoint_of_another_search_or_a_damaged_one_is_refused(
    space: Space, tmp_path: Path
) -> None:
    trained("darts", tmp_path, space, epochs=1)
    with pytest.raises(StrategyError, match="belongs to another search"):
        trained("darts", tmp_path, space, epochs=2)
    (tmp_path / "nni.ckpt").write_bytes(b"garbage")
    with pytest.raises(StrategyError, match="damaged"):
        trained("darts", tmp_path, space, epochs=1)


@pytest.mark.parametrize("method", ["gumbel", "darts"])
def test_whether_the_supernet_stood_in_train_or_eval_mode_changes_nothing(
    method: str, space: Space, tmp_path: Path
) -> None:
    net, task = supernet(space)
    asks = []
    for mode in (True, False):
        copied = copy.deepcopy(net).train(mode)
        for blocks in copied.prompts.values():
            for module in blocks:
                module.dropout = 0.5
        strategy = NNIOneShot(space, 0, method=method, epochs=1)  # type: ignore[arg-type]
        strategy.begin(copied, task, tmp_path / str(mode))
        asks.append(strategy.ask(10))
    assert asks[0] == asks[1]


def test_gumbel_cools_from_one_to_a_third(space: Space, tmp_path: Path) -> None:
    strategy = NNIOneShot(space, 0, epochs=3)
    taus: list[float] = []

    def watch(_progress: Progress) -> None:
        taus.append(next(m.tau for m in strategy._space.modules() if hasattr(m, "tau")))

    strategy.begin(*supernet(space), tmp_path / "nni.ckpt", watch)
    assert taus == pytest.approx([1.0, 7 / 9, 5 / 9])


def test_rates_that_are_not_finite_are_refused(space: Space) -> None:
    with pytest.raises(ValueError, match="finite"):
        NNIOneShot(space, 0, arc_lr=float("nan"))


def test_asked_before_it_began_it_says_so(space: Space) -> None:
    with pytest.raises(StrategyError, match="call begin first"):
        NNIOneShot(space, 0).ask(1)


def test_without_nni_one_sentence_says_what_is_missing(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mock of a machine where nni does not exist: its import fails."""
    import sys

    monkeypatch.setitem(sys.modules, "nni", None)
    with pytest.raises(StrategyError, match=r"needs nni 3.0 \(x86-64"):
        NNIOneShot(space, 0)


def test_a_path_is_an_arch_of_the_space(space: Space) -> None:
    strategy = NNIOneShot(space, 0, method="spos")
    rng = np.random.default_rng(0)
    paths = [strategy._path(rng) for _ in range(20)]
    assert all(isinstance(arch, Arch) and space.misfit(arch) is None for arch in paths)
    assert len(set(paths)) > 15


# --- attributes ------------------------------------------------------------------------------


def task_of(digits: Dataset, backbone: Backbone) -> Task:
    return Task(digits, backbone.preprocess, torch.device("cpu"))


@pytest.mark.parametrize("method", ["gumbel", "darts", "spos"])
@pytest.mark.parametrize("rules", [[], RULES])
def test_attributes_are_searched_within_the_space_its_ties_rules_and_budget(
    method: str, rules: list[str], backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    space = Space("s", ATTRIBUTES, budget=Budget(3000), rules=rules).bind(backbone.model)
    torch.manual_seed(0)
    net = Supernet(backbone.model, space, len(digits.classes))
    strategy = make_strategy("nni", space, 0, {"method": method, "epochs": "2"})
    assert isinstance(strategy, NNIOneShot)
    strategy.begin(net, task_of(digits, backbone), tmp_path / "nni.ckpt")
    assert strategy._ranked
    assert strategy.ask(1)[0].arch == strategy._ranked[0]
    archs = [proposal.arch for proposal in strategy.ask(40)]
    assert len(set(archs)) == 40
    assert all(arch in space and space.feasible(arch) for arch in archs)
    for name, part in space.parts.items():
        for key, offered in part.attributes.items():
            rows = [part.filled(arch[name])[key] for arch in archs if name in arch]
            assert {value for row in rows for value in row} >= set(offered), (name, key)
    with torch.no_grad():
        assert net.eval()(torch.zeros(1, 3, 16, 16), archs[0]).isfinite().all()


def fitted(backbone: Backbone, digits: Dataset, space: Space) -> tuple[Supernet, Task]:
    """A supernet that knows the digits: its classifier is trained, its modules change nothing."""
    torch.manual_seed(0)
    net, task = (
        Supernet(backbone.model, space, len(digits.classes)).eval(),
        task_of(digits, backbone),
    )
    features: list[Tensor] = []
    handle = net.head.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    labels = []
    with torch.no_grad():
        for images, targets in digits.train.batches(256, task.preprocess, task.device):
            net(images, Arch())
            labels.append(targets)
    handle.remove()
    x, y = torch.cat(features), torch.cat(labels)  # (B, D), (B)
    optimizer = torch.optim.Adam(net.head.parameters(), 0.05)
    for _ in range(200):
        loss = F.cross_entropy(net.head(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss < 0.5
    return net, task


LAYERS = {"q+v": "pairs.v.up", "fc1+fc2": "pairs.fc2.up"}
BRANCHES = {"mlp": "up", "attention-parallel": "placed.attention-parallel.up"}
PLANTED = [  # the last: how great the harm is; Gumbel's noise hides a small one
    ("gumbel", "lora", "targets", LAYERS, 2.0),
    ("darts", "adapter", "placement", BRANCHES, 0.5),
]


@pytest.mark.parametrize(("method", "name", "key", "places", "harm"), PLANTED)
@pytest.mark.parametrize("bad", [0, 1])
def test_probabilities_move_away_from_a_value_whose_weights_do_harm(
    method: str,
    name: str,
    key: str,
    places: dict[str, str],
    harm: float,
    bad: int,
    backbone: Backbone,
    digits: Dataset,
    tmp_path: Path,
) -> None:
    space = Space("s", {name: ModuleSpace((4,), attributes={key: tuple(places)})})
    space = space.bind(backbone.model)
    net, task = fitted(backbone, digits, space)
    generator = torch.Generator().manual_seed(0)
    harmful, good = list(places)[bad], list(places)[1 - bad]
    for block in net.prompts[name]:  # type: ignore[union-attr]
        torch.nn.init.normal_(block.get_parameter(places[harmful]), 0, harm, generator=generator)
    strategy = NNIOneShot(space, 0, method=method, epochs=6, lr=0.0, arc_lr=0.3)  # type: ignore[arg-type]
    strategy.begin(net, task, tmp_path / "nni.ckpt")
    with torch.no_grad():
        learned = strategy._space.probabilities()[f"{name}.{key}"]
    assert float(learned[harmful]) < 0.2
    assert strategy._ranked is not None
    assert set(space.parts[name].filled(strategy._ranked[0][name])[key]) == {good}


def test_a_budget_moves_the_probabilities_to_the_cheaper_value(
    backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    part = ModuleSpace((4,), attributes={"targets": ("q", "fc1+fc2")})  # 2·D and 10·D a rank
    space = Space("s", {"lora": part}, budget=Budget(2000)).bind(backbone.model)
    net = Supernet(backbone.model, space, len(digits.classes))
    strategy = NNIOneShot(space, 0, method="darts", epochs=5, lr=0.0, arc_lr=0.3)
    strategy.begin(net, task_of(digits, backbone), tmp_path / "nni.ckpt")
    with torch.no_grad():
        learned = strategy._space.probabilities()["lora.targets"]
    assert float(learned["q"]) > 0.8
