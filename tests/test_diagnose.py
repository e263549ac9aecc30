from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from noahnas import Space
from noahnas.backbone import load_backbone
from noahnas.data import Dataset, Task
from noahnas.diagnose import spread
from noahnas.evaluate import evaluate
from noahnas.files import json_text
from noahnas.recipe import Stage
from noahnas.report.comparison import heading
from noahnas.report.tables import budget_told, spread_told
from noahnas.space import Budget, ModuleSpace
from noahnas.space.check import binding, check
from noahnas.train import build

from .conftest import invoke


def test_binding_is_the_share_of_the_paper_prior_that_meets_the_budget() -> None:
    """LoRA of rank 1 or 2 in one or two blocks of width 1 costs 4 to 16; half of the draws ≤ 8."""
    space = Space("s", {"lora": ModuleSpace((1, 2), (1, 2))}, blocks=2, width=1)
    tight = binding(space.with_budget(4))  # depth 1 and dim 1: a quarter
    assert tight.share == pytest.approx(0.25, abs=0.03)
    assert not tight.largest_feasible
    loose = binding(space.with_budget(16))
    assert loose.share == 1.0
    assert loose.largest_feasible
    assert not loose.binds


@pytest.mark.parametrize(("name", "blocks", "width"), [("demo", 12, 128), ("tiny", 4, 48)])
def test_the_budgets_of_the_embedded_spaces_bind(name: str, blocks: int, width: int) -> None:
    found = binding(Space.load(name).bind(blocks=blocks, width=width))
    assert found.binds
    assert found.share > 0.02


def test_the_paper_s_budget_hardly_binds() -> None:
    assert not binding(Space.load("noah-vtab")).binds


def test_a_share_that_no_draw_tells_is_null_in_json_and_a_dash_in_tables() -> None:
    """Three modules whose dims follow each other in each block: too tangled, too rarely obeyed."""
    modules = {m: ModuleSpace(tuple(range(1, 100))) for m in ("adapter", "lora", "vpt")}
    rules = ["lora.dim <= vpt.dim", "vpt.dim <= adapter.dim"]
    space = Space("s", modules, rules=rules, blocks=12, budget=Budget(5_000_000))
    checked = check(space)
    assert checked.share is None
    assert checked.binding.share is None
    assert not checked.binding.binds
    found = asdict(checked.binding)
    assert json.loads(json.dumps(found, allow_nan=False))["share"] is None
    assert "· – of the paper prior passes" in budget_told(5_000_000, found)
    about = {"backbone": "b", "space": "s", "budget": 5_000_000, "binding": found,
             "recipe": {"name": "r"}, "trials": 1, "passes": 1}  # fmt: skip
    assert "(5,000,000 parameters: – of the paper prior passes)" in heading(
        {"about": about, "of": "1 supernet × 1 seeds"}
    )


def test_a_number_that_is_not_finite_is_null_in_json() -> None:
    told = json_text({"a": math.nan, "b": [1.5, (-math.inf, np.float64("nan"))], "c": "né"})
    assert json.loads(told) == {"a": None, "b": [1.5, [None, None]], "c": "né"}
    assert "NaN" not in told
    assert "Infinity" not in told
    assert json_text({"c": "né"}, ascii_only=True) == '{"c": "n\\u00e9"}'


def test_spread_is_the_deviation_of_thirty_random_archs(digits: Dataset, space: Space) -> None:
    backbone = load_backbone("vit-digits")
    net = build(backbone, space, 5, Stage(1, 1e-3, 8), seed=0)
    task = Task(digits, backbone.preprocess, torch.device("cpu"))
    found = spread(net, space, task, seed=3)
    archs = space.sample(np.random.default_rng([3, 30]), 30, prior="paper")
    accuracies = [evaluate(net, arch, task).accuracy for arch in archs]
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.sd == pytest.approx(np.std(accuracies, ddof=1))
    assert found.error == pytest.approx(np.sqrt(found.mean * (1 - found.mean) / 99))
    assert found.passes == 30 * 99
    assert found.chance == pytest.approx(np.bincount(digits.val.labels.numpy()).max() / 99)
    assert found.learned == (found.mean > found.chance + found.error)


def test_the_table_says_when_a_search_ranks_noise_and_when_the_budget_is_loose() -> None:
    told = {
        "mean": 0.5, "sd": 0.02, "error": 0.035, "chance": 0.2, "learned": True, "archs": 30,
    }  # fmt: skip
    assert "ranks noise" in spread_told(told)
    assert "ranks noise" not in spread_told(told | {"sd": 0.05})
    told |= {"chance": 0.48, "learned": False, "sd": 0.05}
    assert "commonest class 48.0%: the supernet has learned nothing" in spread_told(told)
    assert "largest arch infeasible" in budget_told(9, {"largest_feasible": False, "share": 0.2})
    assert "largest arch feasible" in budget_told(9, {"largest_feasible": True, "share": 1.0})


RECIPE = """\
name: still
description: a supernet whose learning rate is nearly nothing
supernet: {epochs: 1, lr: 1e-12, batch_size: 64}
policy: paper
trials: 4
batch: 4
retrain: {epochs: 1, lr: 5e-3, batch_size: 64}
"""


def test_a_supernet_that_has_learned_nothing_is_told_before_it_is_searched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "still.yaml").write_text(RECIPE)
    words = ["search", "--data", "digits", "--backbone", "vit-digits", "--space", "tiny"]
    words += ["--recipe", str(tmp_path / "still.yaml"), "--strategy", "random"]
    code, printed, error = invoke(*words, "--out", str(tmp_path / "run"), "--json")
    assert code == 0, error
    assert "the supernet has learned nothing: random archs score" in caplog.text
    assert "a lower supernet.lr in the recipe (this one had 1e-12), or" in caplog.text
    assert json.loads(printed)["spread"]["learned"] is False
    code, shown, error = invoke("search", "--resume", str(tmp_path / "run"))
    assert code == 0, error
    assert "the supernet has learned nothing" in " ".join(shown.replace("│", " ").split())
