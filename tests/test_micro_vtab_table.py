"""micro-VTAB's table through the whole command, on a small grid with the embedded digits ViT."""

from __future__ import annotations

import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import t as student

import noahnas
from noahnas import Arch, NoahnasError, Space
from noahnas.backbone import load_backbone
from noahnas.data import micro_vtab
from noahnas.protocols import campaign
from noahnas.protocols.cells import Settings, at_rate, best_rate
from noahnas.protocols.designs import design, row_of
from noahnas.protocols.grid import merged
from noahnas.protocols.micro import Asked, Figure, rows_of, tasks_of
from noahnas.protocols.micro_table import apart
from noahnas.protocols.prices import passes
from noahnas.recipe import Recipe, parse_recipe
from noahnas.space import format_space

from .conftest import invoke

RECIPE = """\
name: small
description: for tests
supernet: {epochs: 2, lr: 5e-3, batch_size: 64}
policy: paper
trials: 6
batch: 3
search: {options: {population: 3, top: 2, mutants: 1, crossovers: 1}}
retrain: {epochs: 1, lr: 5e-3, batch_size: 64}
protocol:
  name: micro-vtab
  table: a small one
  backbone: vit-digits
  space: tiny
  seeds: [0, 1]
  rates:
    lora: [1e-4, 2e-2]
    mixed: [5e-3, 2e-2]
    linear: [5e-3, 1e+30]
  rows:
    linear: {epochs: 1, lr: 5e-3, batch_size: 64}
    adapter: {epochs: 1, lr: 5e-3, batch_size: 64}
    lora: {epochs: 1, lr: 5e-3, batch_size: 64}
    vpt-deep: {epochs: 2, lr: 5e-3, batch_size: 64}
"""
TASKS = "digits,x-position"
WAIT = 300.0  # seconds for a process, on a machine with much other work
ROWS = "adapter,lora,vpt,feasible,alone,random,noah"


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "reproduce", "micro-vtab", "--recipe", str(folder / "small.yaml"), "--out", str(out), *more,
    ]  # fmt: skip


def result(out: Path, cell: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / cell / "result.json").read_text())
    return found


def accuracy(out: Path, task: str, row: str, seed: int) -> float:
    found: float = result(out, f"{task}/{row}/seed-{seed}")["test"]["accuracy"]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("micro")
    (root / "small.yaml").write_text(RECIPE)
    (root / "short.yaml").write_text(
        RECIPE.split("protocol:")[0]
        .replace("name: small", "name: short")
        .replace("epochs: 2", "epochs: 1")
    )
    return root


@pytest.fixture(scope="module")
def ran(folder: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Where the runs are, what a first call printed, and what a second one that adds to it did."""
    out = folder / "out"
    first = command(folder, out, "--tasks", "digits", "--rows", ROWS, "--json")
    code, printed, error = invoke(*first)
    assert code == 0, error
    rows = f"lora,noah,noah@{folder / 'short.yaml'}"
    second = command(folder, out, "--tasks", "x-position", "--rows", rows, "--seeds", "0", "--json")
    code, again, error = invoke(*second)
    assert code == 0, error
    return out, json.loads(printed), json.loads(again)


# --- the table ------------------------------------------------------------------------------


def test_figures_are_those_of_the_runs_with_intervals_over_seeds(ran: Any) -> None:
    out, told, _ = ran
    assert list(told["rows"]) == ROWS.split(",")
    for row in ROWS.split(","):
        both = [accuracy(out, "digits", row, seed) for seed in (0, 1)]
        half = student.ppf(0.975, 1) * statistics.stdev(both) / math.sqrt(2)
        found = told["rows"][row]["tasks"]["digits"]
        assert found["mean"] == pytest.approx(statistics.fmean(both))
        assert found["half"] == pytest.approx(half)
        assert found["seeds"] == {"0": both[0], "1": both[1]}
        sizes = [result(out, f"digits/{row}/seed-{seed}")["params"] for seed in (0, 1)]
        assert told["rows"][row]["params"] == statistics.fmean(sizes)


def test_a_later_call_adds_to_the_table_and_averages_by_group(ran: Any) -> None:
    out, first, told = ran
    assert told["about"]["tasks"] == ["digits", "x-position"]
    for row in ("lora", "noah"):
        digits = statistics.fmean(accuracy(out, "digits", row, seed) for seed in (0, 1))
        position = accuracy(out, "x-position", row, 0)
        found = told["rows"][row]
        assert found["tasks"]["digits"] == first["rows"][row]["tasks"]["digits"]
        assert found["groups"]["specialised"]["mean"] == pytest.approx(digits)
        assert found["groups"]["structured"]["mean"] == pytest.approx(position)
        assert found["mean"]["mean"] == pytest.approx((digits + position) / 2)
    assert told["rows"]["random"]["mean"] is None  # not run on x-position
    assert told["groups"]["structured"] == {"tasks": ["x-position"], "of": 4}
    assert json.loads((out / "micro-vtab.json").read_text()) | {"out": str(out)} == told


def test_passes_and_seconds_stand_by_stage(ran: Any) -> None:
    out, told, _ = ran
    noah, lora = told["rows"]["noah"]["cost"], told["rows"]["lora"]["cost"]
    assert noah["supernet"]["passes"] == 3 * 800 * 2
    assert noah["search"]["passes"] == 6 * 200
    assert noah["retrain"]["passes"] == lora["retrain"]["passes"] == 3 * 1000
    assert lora["rates"]["passes"] == 2 * 3 * 800
    assert lora["supernet"]["passes"] == 0
    seconds = [
        result(out, f"digits/noah/seed-{seed}")["cost"]["search"]["seconds"] for seed in (0, 1)
    ]
    assert noah["search"]["seconds"] == pytest.approx(statistics.fmean(seconds))


def test_paired_differences_are_those_of_the_runs_and_too_few_seeds_is_said(ran: Any) -> None:
    out, told, _ = ran
    found = {each["row"]: each for each in told["answers"]["feasible"]}
    assert list(found) == ["noah", "random"]
    chance = [accuracy(out, "digits", "feasible", seed) for seed in (0, 1)]
    for name, each in found.items():
        own = [accuracy(out, "digits", name, seed) for seed in (0, 1)]
        assert each["difference"]["mean"] == pytest.approx(
            statistics.fmean(own) - statistics.fmean(chance)
        )
    row = found["noah"]
    pairs = [accuracy(out, "digits", "noah", seed) - chance[seed] for seed in (0, 1)]
    assert row["difference"]["mean"] == pytest.approx(statistics.fmean(pairs))
    assert row["difference"]["low"] == pytest.approx(min(pairs))
    assert row["won"] == sum(pair > 0 for pair in pairs)
    assert row["verdict"] == "too few seeds to tell"
    assert row["answer"] == "cannot be told"
    assert [each["against"] for each in told["answers"]["singles"]] == ["adapter", "lora", "vpt"]


def test_both_facts_about_the_budget_are_told(ran: Any) -> None:
    out, told, _ = ran
    share = told["about"]["binding"]["share"]
    assert 0.1 < share < 0.25
    used = [result(out, f"digits/noah/seed-{seed}")["params"] / 2000 for seed in (0, 1)]
    assert told["budget"]["used"]["noah"]["mean"] == pytest.approx(statistics.fmean(used))
    notes = " ".join(told["notes"])
    assert f"leaves out {1 - share:.1%} of uniform draws" in notes
    assert "winners of NOAH come within 2% of the budget" in notes


def test_where_the_budget_counts_the_classifier_each_task_s_share_is_of_its_own(
    folder: Path, tmp_path: Path
) -> None:
    space = Space.load("tiny")
    text = format_space(space).replace("params: 2000", "params: {max: 2500, head: true}")
    (tmp_path / "head.yaml").write_text(text)
    words = command(folder, tmp_path / "out", "--space", str(tmp_path / "head.yaml"))
    code, printed, error = invoke(*words, "--rows", "lora", "--tasks", TASKS, "--seeds=0", "--json")
    assert code == 0, error
    told = json.loads(printed)
    shares = []
    for task in TASKS.split(","):
        head = len(micro_vtab.TASKS[task].classes) * (48 + 1)
        shares.append(told["runs"][f"{task}/lora/seed-0"]["params"] / (2500 - head))
    assert shares[0] != shares[1]
    used = told["budget"]["used"]["lora"]
    assert (used["least"], used["most"]) == (min(shares), max(shares))
    report = (tmp_path / "out/micro-vtab.md").read_text()
    own = 2500 - len(micro_vtab.TASKS["digits"].classes) * (48 + 1)
    assert f"at most {own:,} parameters beside the classifier of digits" in report
    assert f"The budget of {own:,} parameters beside the classifier of digits leaves out" in report


def test_the_report_is_readable_and_links_its_plots(ran: Any, folder: Path) -> None:
    out, _, _ = ran
    told = (out / "micro-vtab.md").read_text()
    for text in ("| LoRA at equal budget |", "## Answers", "![curve.png](curve.png)", "structured"):
        assert text in told
    for name in ("curve", "winners", "differences"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (out / f"{name}.svg").read_bytes()
    rows = f"noah,noah@{folder / 'short.yaml'}"
    code, printed, error = invoke(
        *command(folder, out, "--tasks", "x-position", "--rows", rows, "--seeds", "0")
    )
    assert code == 0, error
    assert "Accuracy against passes" in printed
    assert "by task" in printed


# --- the runs -------------------------------------------------------------------------------


def test_a_learning_rate_is_chosen_by_val_alone(ran: Any) -> None:
    """Trained on the 800 of train, scored on the 200 of val; test is not looked at."""
    out, told, _ = ran
    scores = {}
    for rate in ("0.0001", "0.02"):
        found = result(out, f"digits/rates/lora/lr-{rate}")
        assert "test" not in found
        assert (found["val"]["split"], found["val"]["passes"]) == ("val", 200)
        assert found["cost"]["retrain"]["passes"] == 3 * 800
        assert not (out / f"digits/rates/lora/lr-{rate}/best.safetensors").exists()
        scores[float(rate)] = found["val"]["accuracy"]
    best = max(scores, key=lambda rate: scores[rate])
    assert told["rates"]["digits"]["lora"]["chosen"] == best
    assert told["rates"]["digits"]["lora"]["tried"] == {f"{r:g}": a for r, a in scores.items()}
    for seed in (0, 1):
        about = json.loads((out / f"digits/lora/seed-{seed}/run.json").read_text())
        assert about["inputs"]["recipe"]["retrain"]["lr"] == best
    mixed = told["rates"]["digits"]["mixed"]["chosen"]
    for row in ("feasible", "random", "noah"):
        about = json.loads((out / f"digits/{row}/seed-1/run.json").read_text())
        assert about["inputs"]["recipe"]["retrain"]["lr"] == mixed


def test_a_higher_accuracy_does_not_choose_and_ties_go_to_the_lower_loss() -> None:
    rates = (("a", 0.1), ("b", 0.2), ("c", 0.3))
    results: dict[str, dict[str, Any]] = {
        "a": {"val": {"accuracy": 0.5, "loss": 1.0}, "test": {"accuracy": 0.9}},
        "b": {"val": {"accuracy": 0.6, "loss": 1.0}, "test": {"accuracy": 0.1}},
        "c": {"failed": "the loss is not finite"},
    }
    assert best_rate(rates, results) == 0.2
    results["c"] = {"val": {"accuracy": 0.6, "loss": 0.9}}
    assert best_rate(rates, results) == 0.3
    with pytest.raises(NoahnasError, match="diverged with every learning rate"):
        best_rate(rates[:1], {"a": {"failed": "no"}})


def test_a_rate_is_judged_by_all_designs_that_were_trained_with_it() -> None:
    rates = (("a0", 0.1), ("a1", 0.1), ("b0", 0.2), ("b1", 0.2))
    accuracies = {"a0": 0.6, "a1": 0.6, "b0": 0.9, "b1": 0.2}
    results: dict[str, dict[str, Any]] = {
        name: {"val": {"accuracy": accuracy, "loss": 1.0}} for name, accuracy in accuracies.items()
    }
    assert best_rate(rates, results) == 0.1
    results["b1"] = {"val": {"accuracy": 0.4, "loss": 1.0}}
    assert best_rate(rates, results) == 0.2
    results["b1"] = {"failed": "the loss is not finite"}
    assert best_rate(rates, results) == 0.1


def test_rates_of_mixed_designs_are_tried_with_several_that_are_in_no_row(ran: Any) -> None:
    out, told, _ = ran
    tried = {}
    for rate in told["rates"]["digits"]["mixed"]["tried"]:
        places = sorted((out / f"digits/rates/mixed/lr-{rate}").glob("*/result.json"))
        found = [json.loads(place.read_text()) for place in places]
        tried[rate] = sum(f["val"]["accuracy"] for f in found) / 3
        archs = {json.dumps(f["arch"]) for f in found}
        assert len(archs) == 3
        rows = [json.dumps(result(out, f"digits/feasible/seed-{s}")["arch"]) for s in (0, 1)]
        assert not archs & {*rows}
    assert told["rates"]["digits"]["mixed"]["tried"] == pytest.approx(tried)


def test_searches_of_one_seed_share_a_supernet_that_each_is_charged(ran: Any) -> None:
    out, _, _ = ran
    for seed in (0, 1):
        cost = result(out, f"digits/supernet/seed-{seed}")["cost"]["supernet"]
        weights = (out / f"digits/supernet/seed-{seed}/supernet.safetensors").read_bytes()
        for row in ("random", "noah"):
            own = result(out, f"digits/{row}/seed-{seed}")["cost"]["supernet"]
            assert own["reused"] == str(out / f"digits/supernet/seed-{seed}")
            assert (own["passes"], own["seconds"]) == (cost["passes"], cost["seconds"])
            copied = out / f"digits/{row}/seed-{seed}/supernet.safetensors"
            assert len(copied.read_bytes()) == len(weights)
            first, mine = (
                json.loads((out / f"digits/{name}/seed-{seed}/stages.json").read_text())["spread"]
                for name in ("supernet", row)
            )
            assert mine == first | {"reused": str(out / f"digits/supernet/seed-{seed}")}
    about = json.loads((out / "digits/random/seed-0/run.json").read_text())["inputs"]
    assert (about["strategy"], about["options"]) == ("random", {})
    told = json.loads((out / "micro-vtab.json").read_text())
    assert told["apart"]["pairs"] >= 2
    assert told["apart"]["apart"] == 0
    assert any("search the same supernet; it is" in note for note in told["notes"])


def test_searches_of_supernets_that_are_not_the_same_are_counted() -> None:
    figures = [Figure("emoji", row, seed) for row in ("random", "noah") for seed in (0, 1)]
    spreads = [{"mean": mean, "sd": 0.1, "archs": 30} for mean in (0.5, 0.6, 0.5, 0.7)]
    results = {f.name: {"spread": found} for f, found in zip(figures, spreads, strict=True)}
    assert apart(figures, results) == {"pairs": 2, "apart": 1}
    assert apart(figures[1:], results) == {"pairs": 1, "apart": 1}
    assert apart(figures[2:], results) == {"pairs": 0, "apart": 0}


def test_without_a_supernet_the_best_of_short_trainings_is_retrained(ran: Any) -> None:
    out, told, _ = ran
    for seed in (0, 1):
        tried = [result(out, f"digits/candidates/seed-{seed}/{i}") for i in range(2)]
        assert not (out / f"digits/candidates/seed-{seed}/2").exists()  # 4,800 + 1,200 passes
        best = max(tried, key=lambda found: (found["val"]["accuracy"], -found["val"]["loss"]))
        assert tried[0]["digest"] != tried[1]["digest"]
        assert all("test" not in found for found in tried)
        assert result(out, f"digits/alone/seed-{seed}")["arch"] == best["arch"]
        run = told["runs"][f"digits/alone/seed-{seed}"]
        assert run["cost"]["search"]["passes"] == 2 * (2400 + 200)
    cost = told["rows"]["alone"]["cost"]
    assert cost["search"]["passes"] == 5200
    assert cost["supernet"]["passes"] == 0


def test_single_modules_are_as_wide_as_the_budget_allows() -> None:
    model: Any = load_backbone("vit-nano").model
    space = Space.load("micro-vtab").bind(model, classes=6)
    budget = space.limits[1]
    assert budget is not None
    for name, cost, offset in (("adapter", 257, 128), ("lora", 512, 0), ("vpt", 128, 0)):
        dim = (budget // 12 - offset) // cost
        arch = design(row_of(name), space, "count", 0)
        assert arch == Arch(**{name: (dim,) * 12})
        assert 0.95 * budget < 12 * (cost * dim + offset) <= budget


def test_a_random_feasible_design_differs_by_task_and_seed_and_meets_the_budget() -> None:
    model: Any = load_backbone("vit-digits").model
    space = Space.load("tiny").bind(model, classes=10)
    row = row_of("feasible")
    drawn = [design(row, space, task, s) for task in ("emoji", "count") for s in range(3)]
    assert len(set(drawn)) == 6
    assert all(space.feasible(arch) for arch in drawn)
    assert design(row, space, "count", 2) == drawn[-1]


def test_the_space_binds_and_any_subset_of_blocks_is_in_it() -> None:
    from noahnas.space.check import binding

    model: Any = load_backbone("vit-nano").model
    space = Space.load("micro-vtab").bind(model)
    assert binding(space).binds
    assert 0.05 < binding(space).share < 0.25
    for bits in (0, 5, 4095):
        arch = Arch(lora=tuple(8 * (bits >> block & 1) for block in range(12)))
        assert space.contains(arch)


def test_recipes_cost_what_they_say() -> None:
    """Passes of a search with 800 train and 200 val images, its retraining included."""

    def cost(name: str) -> int:
        recipe = Recipe.load(name)
        whole = 3 * 800 * recipe.supernet.epochs + 200 * recipe.trials
        return whole + 3 * 1000 * recipe.retrain.epochs

    paper = cost("micro-vtab-paper")
    assert paper == 1_660_000
    assert cost("micro-vtab") <= paper / 5
    assert cost("micro-vtab-tenth") <= paper / 10
    assert cost("micro-vtab-fifth") <= paper / 5
    assert cost("micro-vtab-short-search") == paper / 5
    assert cost("micro-vtab-twentieth") <= paper / 20
    assert cost("micro-vtab-small-batch") <= paper / 20
    assert cost("micro-vtab-small-batch-long") <= paper / 10
    assert cost("micro-vtab-decay") <= paper / 12


def test_epochs_that_a_winner_tries_are_charged_and_baselines_try_none() -> None:
    chosen = Recipe.load("micro-vtab-chosen-epochs")
    table = Recipe.load("micro-vtab")
    assert table.protocol
    trying = replace(table, retrain_epochs=(2, 4))
    settings = Settings(trying, table.protocol, (), (0,), "vit-nano", 12, Space.load("micro-vtab"))
    names = ("noah@micro-vtab-chosen-epochs", "feasible", "lora")
    figures = tuple(Figure("emoji", name, 0) for name in names)
    plan = Asked(settings, figures, {"micro-vtab-chosen-epochs": chosen}).plan()
    cost = {cell.row.name: passes(cell) for cell in plan if not cell.inputs.held_out}
    tried = {f"epochs-{n}": 3 * 800 * n + 200 for n in (2, 4, 16, 32)}
    found = {"search": 8000, "retrain": 3 * 1000 * 32}
    found |= {name: tried[name] for name in ("epochs-16", "epochs-32")}
    assert cost["noah@micro-vtab-chosen-epochs"] == found
    assert 24_000 + sum(found.values()) < 1_660_000 / 5  # with its supernet
    own = {name: tried[name] for name in ("epochs-2", "epochs-4")}
    assert cost["feasible"] == own | {"retrain": 3 * 1000 * 4}
    assert cost["lora"] == {"retrain": 3 * 1000 * 30}
    rates = [passes(cell) for cell in plan if cell.inputs.held_out]
    assert rates
    assert all(set(each) == {"retrain"} for each in rates)


def test_a_recipe_takes_its_learning_rate_from_the_trials_of_one_that_retrains_alike() -> None:
    table, paper, short = (
        Recipe.load(f"micro-vtab{name}") for name in ("", "-paper", "-short-search")
    )
    assert table.protocol
    assert short.protocol
    space = Space.load("micro-vtab")
    settings = Settings(table, table.protocol, (), (0,), "vit-nano", 12, space)
    figure = Figure("emoji", f"noah@{short.name}", 0)
    plan = {cell.name: cell for cell in Asked(settings, (figure,), {short.name: short}).plan()}
    trials = plan[figure.name].rates
    assert [rate for _, rate in trials] == [rate for rate in (3e-3, 1e-2, 3e-2) for _ in range(3)]
    name, rate = trials[0]
    assert name == "emoji/rates/mixed@micro-vtab-paper/lr-0.003/0"
    assert plan[name].inputs.recipe == at_rate(replace(paper, protocol=None), rate)
    assert plan[figure.name].inputs.recipe == replace(short, protocol=None)
    own = replace(short, protocol=replace(short.protocol, rates_from="micro-vtab"))
    own = replace(own, retrain=table.retrain)
    plan = {cell.name: cell for cell in Asked(settings, (figure,), {short.name: own}).plan()}
    assert plan[figure.name].rates[0][0] == "emoji/rates/mixed/lr-0.003/0"
    for unlike, fault in (
        (replace(short, retrain=replace(short.retrain, epochs=2)), "retrains in another way"),
        (replace(short, retrain_on="train"), "retrains in another way"),
        (with_protocol(short, rates_from="micro-vtab-tenth"), r"has no protocol\.rates\.mixed"),
        (with_protocol(short, rates={"mixed": (1e-2,)}), "leave one of them out"),
    ):
        with pytest.raises(NoahnasError, match=f"'{short.name}' takes its learning .*{fault}"):
            Asked(settings, (figure,), {short.name: unlike}).plan()


def with_protocol(recipe: Recipe, **changed: Any) -> Recipe:
    assert recipe.protocol
    return replace(recipe, protocol=replace(recipe.protocol, **changed))


def test_a_recipe_that_takes_its_rates_from_none_that_is_shipped_is_faulty(tmp_path: Path) -> None:
    text = RECIPE.replace("  rates:", "  rates_from: micro-vtab-papr\n  rates:")
    line = 1 + text.splitlines().index("  rates_from: micro-vtab-papr")
    with pytest.raises(NoahnasError, match=rf"odd:{line}:15: unknown recipe 'micro-vtab-papr'"):
        parse_recipe(text, "odd")
    mine = tmp_path / "mine.yaml"
    mine.write_text(RECIPE.replace("name: small", "name: micro-vtab-paper"))
    with pytest.raises(NoahnasError, match="a shipped recipe is called micro-vtab-paper, too"):
        rows_of(["noah@micro-vtab-short-search", f"noah@{mine}"])


def test_the_first_seed_searches_and_others_retrain_its_winner_where_a_recipe_says_so(
    ran: Any, folder: Path
) -> None:
    out, told, _ = ran
    shared = folder / "shared"
    shutil.copytree(out / "digits", shared / "digits")  # the first seed's search is the same
    again = RECIPE.replace("  seeds:", "  winner: first-seed\n  seeds:")
    (folder / "again").mkdir()
    (folder / "again/small.yaml").write_text(again)
    shutil.rmtree(shared / "digits/noah/seed-1")
    words = command(folder / "again", shared, "--tasks", "digits", "--rows", "noah", "--json")
    code, printed, error = invoke(*words)
    assert code == 0, error
    first, second = (result(shared, f"digits/noah/seed-{seed}") for seed in (0, 1))
    assert first["arch"] == second["arch"] == told["runs"]["digits/noah/seed-0"]["arch"]
    assert set(second["cost"]) == {"retrain"}
    costs = [json.loads(printed)["runs"][f"digits/noah/seed-{seed}"]["cost"] for seed in (0, 1)]
    for stage in ("supernet", "search"):
        assert costs[0][stage]["passes"] == costs[1][stage]["passes"] > 0
    assert costs[1]["retrain"] == second["cost"]["retrain"]
    told = json.loads(printed)["notes"]
    assert any(note.startswith("NOAH (evolution): searched with seed 0 alone") for note in told)


# --- going on -------------------------------------------------------------------------------


def test_killed_and_interrupted_it_ends_as_it_would_have(ran: Any, folder: Path) -> None:
    out, told, _ = ran
    cut = folder / "cut"
    words = command(folder, cut, "--tasks", "digits", "--rows", "noah", "--seeds", "0", "--json")

    def stopped(sign: signal.Signals, path: Path) -> tuple[int, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "noahnas", *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        deadline = time.monotonic() + WAIT
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if path.exists():
                    process.send_signal(sign)
                    break
                time.sleep(0.002)
            _, error = process.communicate(timeout=WAIT)
        finally:
            process.kill()
            process.wait()
        return process.returncode, error

    code, _ = stopped(signal.SIGKILL, cut / "digits/supernet/seed-0/supernet.ckpt")
    assert code == -signal.SIGKILL
    assert not (cut / "digits/supernet/seed-0/result.json").exists()
    code, error = stopped(signal.SIGINT, cut / "digits/noah/seed-0/study.journal")
    assert code == 130
    assert f"--out {cut}" in error
    assert "Traceback" not in error
    assert not (cut / "digits/noah/seed-0/result.json").exists()
    code, printed, error = invoke(*words)
    assert code == 0, error
    whole = told["rows"]["noah"]["tasks"]["digits"]["seeds"]["0"]
    assert json.loads(printed)["rows"]["noah"]["tasks"]["digits"]["seeds"]["0"] == whole
    for key in ("arch", "val", "test", "spread"):
        mine, other = (result(where, "digits/noah/seed-0")[key] for where in (cut, out))
        assert mine == other


def test_workers_make_the_same_table(ran: Any, folder: Path) -> None:
    _, told, _ = ran
    out = folder / "by-workers"
    words = command(folder, out, "--tasks", "digits", "--rows", "linear,lora,noah", "--seeds", "0")
    code, printed, error = invoke(*words, "--workers", "2", "--json")
    assert code == 0, error
    mine = json.loads(printed)
    for row in ("lora", "noah"):
        own = told["runs"][f"digits/{row}/seed-0"]
        for key in ("arch", "test"):
            assert mine["runs"][f"digits/{row}/seed-0"][key] == own[key]
    assert mine["rates"]["digits"]["linear"]["diverged"] == [1e30]
    assert mine["rates"]["digits"]["lora"] | {"seconds": 0} == told["rates"]["digits"]["lora"] | {
        "seconds": 0
    }


def test_the_same_command_again_trains_nothing(ran: Any, folder: Path) -> None:
    out, _, told = ran
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    code, printed, error = invoke(
        *command(folder, out, "--tasks", "digits", "--rows", "noah", "--json")
    )
    assert code == 0, error
    assert json.loads(printed)["rows"] == told["rows"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("result.json")} == before


def test_results_alone_count_as_done_as_a_table_needs_no_weights(ran: Any, folder: Path) -> None:
    out, _, told = ran
    kept = folder / "kept"
    for file in (*out.glob("*.json"), *out.rglob("run.json"), *out.rglob("result.json")):
        (kept / file.relative_to(out)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, kept / file.relative_to(out))
    code, printed, error = invoke(
        *command(folder, kept, "--tasks", "digits", "--rows", "noah", "--json")
    )
    assert code == 0, error
    assert json.loads(printed)["rows"] == told["rows"]
    assert not list(kept.rglob("*.safetensors"))


def test_a_table_goes_on_in_another_precision_and_says_so(
    ran: Any, folder: Path, tmp_path: Path
) -> None:
    out, _, told = ran
    shutil.copytree(out, tmp_path / "out")
    assert list(told["about"]["precision"]) == ["fp32"]
    words = ("--tasks", "digits", "--rows", "adapter", "--seeds", "0-2", "--precision", "bf16")
    code, printed, error = invoke(*command(folder, tmp_path / "out", *words, "--json"))
    assert code == 0, error
    after = json.loads(printed)
    assert after["about"]["precision"]["bf16"] == {"adapter": 1}
    assert "Runs in bf16, the others in fp32: adapter (1)." in after["notes"]
    for name, run in told["runs"].items():
        assert after["runs"][name] == run


def test_a_table_goes_on_where_the_weights_lie_elsewhere_but_not_with_others(
    folder: Path, tmp_path: Path
) -> None:
    asset = Path(noahnas.__file__).parent / "assets" / "vit_digits.safetensors"
    out = tmp_path / "out"

    def asked_for(place: str, *more: str) -> tuple[int, str, str]:
        weights = tmp_path / place / "weights.safetensors"
        words = ("--tasks", "digits", "--rows", "adapter", "--backbone", str(weights), *more)
        return invoke(*command(folder, out, *words))

    for place in ("here", "there", "other"):
        (tmp_path / place).mkdir()
        shutil.copy(asset, tmp_path / place / "weights.safetensors")
    with safe_open(asset, framework="pt") as file:
        told = file.metadata()
    changed = {key: value + 1 for key, value in load_file(asset).items()}
    save_file(changed, tmp_path / "other" / "weights.safetensors", told)
    code, _, error = asked_for("here", "--seeds", "0")
    assert code == 0, error
    shutil.rmtree(tmp_path / "here")
    code, _, error = asked_for("there", "--seeds", "0,1")
    assert code == 0, error
    code, _, error = asked_for("other", "--seeds", "0,1,2")
    assert code == 2
    assert "backbone" in error


def test_runs_of_another_recipe_are_not_mixed_in(ran: Any, folder: Path, tmp_path: Path) -> None:
    out, _, _ = ran
    (tmp_path / "small.yaml").write_text(RECIPE.replace("trials: 6", "trials: 7"))
    code, _, error = invoke(*command(tmp_path, out, "--tasks", "digits", "--rows", "noah"))
    assert code == 2
    assert "was begun with other inputs (recipe); choose another --out" in error
    shutil.copytree(out, tmp_path / "out")  # designs that are retrained alone fit any search
    (tmp_path / "out/grid.json").unlink()
    words = command(tmp_path, tmp_path / "out", "--tasks", "digits", "--rows")
    code, printed, error = invoke(*words, "adapter,lora,feasible", "--dry-run", "--json")
    assert code == 0, error
    assert json.loads(printed)["to_do"]["cells"] == 0
    code, _, error = invoke(*words, "noah", "--dry-run")
    assert code == 2
    assert "digits/supernet/seed-0 was begun with other inputs (recipe)" in error
    text = (folder / "short.yaml").read_text().replace("trials: 6", "trials: 7")
    (tmp_path / "short.yaml").write_text(text)
    rows = f"noah@{tmp_path / 'short.yaml'}"
    code, _, error = invoke(*command(folder, out, "--tasks", "digits", "--rows", rows))
    assert code == 2
    assert "(the recipe short)" in error


def test_a_dry_run_tells_passes_and_time_and_what_is_missing_is_named(
    ran: Any, folder: Path, tmp_path: Path
) -> None:
    out, _, _ = ran
    code, printed, error = invoke(
        *command(folder, out, "--tasks", "digits", "--rows", "lora,noah", "--seeds", "0,2"),
        "--dry-run", "--json",
    )  # fmt: skip
    assert code == 0, error
    told = json.loads(printed)
    cells = told["cells"]
    assert cells["digits/noah/seed-0"]["state"] == "done"
    assert cells["digits/supernet/seed-2"]["state"] == "to do"
    for name in ("digits/noah/seed-0", "digits/lora/seed-0", "digits/rates/lora/lr-0.02"):
        spent = {s: c["passes"] for s, c in result(out, name)["cost"].items() if "reused" not in c}
        assert cells[name]["passes"] == spent
    assert cells["digits/lora/seed-2"]["seconds"] > 0
    assert told["to_do"]["cells"] == 3
    kinds = {"lora in batches of 64", "mixed in batches of 64", "evaluation"}
    assert set(told["passes_a_second"]) == kinds
    assert 0.75 < told["binding"]["infeasible"] < 0.9
    assert not (out / "digits/noah/seed-2").exists()


def test_a_rate_that_diverges_is_not_chosen(folder: Path, tmp_path: Path) -> None:
    words = command(
        folder, tmp_path / "out", "--tasks", "digits", "--rows", "linear", "--seeds", "0"
    )
    code, printed, error = invoke(*words, "--json")
    assert code == 0, error
    told = json.loads(printed)
    assert told["rates"]["digits"]["linear"]["chosen"] == 5e-3
    assert told["rates"]["digits"]["linear"]["diverged"] == [1e30]
    trial = tmp_path / "out/digits/rates/linear/lr-1e+30"
    before = {path: path.stat().st_mtime_ns for path in trial.iterdir()}
    code, printed, error = invoke(*words, "--dry-run", "--json")
    assert code == 0, error
    assert json.loads(printed)["to_do"]["cells"] == 0
    code, printed, error = invoke(*words, "--json")
    assert code == 0, error
    assert json.loads(printed) == told
    assert {path: path.stat().st_mtime_ns for path in trial.iterdir()} == before


def test_rates_may_be_added_and_a_row_that_was_trained_with_another_must_go(
    folder: Path, tmp_path: Path
) -> None:
    def asked_for(rates: str, row: str = "linear") -> tuple[int, str, str]:
        (tmp_path / "small.yaml").write_text(RECIPE.replace("[5e-3, 1e+30]", rates))
        words = ("--tasks", "digits", "--rows", row, "--seeds", "0", "--json")
        return invoke(*command(tmp_path, tmp_path / "out", *words))

    code, _, error = asked_for("[1e-9]")
    assert code == 0, error
    code, printed, error = asked_for("[1e-9, 5e-2]")
    assert code == 0, error
    found = json.loads(printed)["rates"]["digits"]["linear"]
    assert (found["chosen"], list(found["tried"])) == (1e-9, ["1e-09", "0.05"])
    code, printed, error = asked_for("[1e-11, 1e-9, 5e-2]", "adapter")
    assert code == 0, error
    found = json.loads(printed)["rates"]["digits"]["linear"]  # one of those listed is not tried yet
    assert (found["chosen"], found["at_edge"], found["diverged"]) == (1e-9, True, [])
    assert list(found["tried"]) == ["1e-09", "0.05"]
    code, _, error = asked_for("[1e-9, 5e-3, 5e-2]")
    assert code == 2
    assert "digits/linear/seed-0 was begun with other inputs (recipe)" in error
    assert "remove it" in error
    shutil.rmtree(tmp_path / "out/digits/linear/seed-0")
    code, printed, error = asked_for("[1e-9, 5e-3, 5e-2]")
    assert code == 0, error
    found = json.loads(printed)["rates"]["digits"]["linear"]
    assert (found["chosen"], found["at_edge"]) == (5e-3, False)


def test_a_recipe_that_rows_name_may_get_a_protocol_and_its_rows_are_compared(
    folder: Path, tmp_path: Path
) -> None:
    def asked_for(text: str, rows: str, *more: str) -> tuple[int, str, str]:
        (tmp_path / "short.yaml").write_text(text)
        named = ",".join(f"{row}@{tmp_path / 'short.yaml'}" for row in rows.split(","))
        words = ("--tasks", "digits", "--rows", named, "--seeds", "0", "--json")
        return invoke(*command(folder, tmp_path / "out", *words, *more))

    short = (folder / "short.yaml").read_text()
    code, _, error = asked_for(short, "feasible")
    assert code == 0, error
    with_rows = short + "protocol:" + RECIPE.partition("protocol:")[2]
    with_rows = "\n".join(line for line in with_rows.splitlines() if "e-2]" not in line)
    code, printed, error = asked_for(with_rows, "feasible,lora")
    assert code == 0, error
    assert set(json.loads(printed)["runs"]) == {
        "digits/feasible@short/seed-0",
        "digits/lora@short/seed-0",
    }
    other = with_rows.replace("lora: {epochs: 1", "lora: {epochs: 2")
    assert other != with_rows
    code, _, error = asked_for(other, "feasible,lora", "--dry-run")
    assert code == 2
    assert "digits/lora@short/seed-0 was begun with other inputs (recipe)" in error
    for more in ([], ["--dry-run"]):  # the row's runs are in the table, which could not be written
        code, _, error = asked_for(short, "feasible", *more)
        assert code == 2
        assert "no protocol.rows.lora, which the row 'lora@short' needs" in error
        assert f"asked for in {tmp_path / 'out'} before; put that back" in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rows", "lara"], "unknown row 'lara'; did you mean 'lora'?"),
        (["--rows", "noah@nosuch"], "nosuch"),
        (["--tasks", "emojis"], "unknown task 'emojis'; did you mean 'emoji'?"),
        (["--rows", "full"], "no protocol.rows.full, which the row 'full' needs"),
        (["--space", "lora-only"], "has no budget, by which rows are made equal"),
        (["--budget", "10"], "no architecture meets the budget"),
        (["--tasks", "digits,fashion"], "not fetched yet: fashion; run `noahnas data fetch"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(
    more: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    code, _, error = invoke(*command(folder, tmp_path / "out", "--tasks", "digits", *more))
    assert code == 2
    assert message in error
    assert not list(tmp_path.rglob("run.json"))


def test_wishes_of_processes_that_begin_at_once_are_all_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.load(str(folder / "small.yaml"))
    assert recipe.protocol
    space = Space.load("tiny")
    settings = Settings(recipe, recipe.protocol, (), (0, 1), "vit-digits", 4, space)
    wishes = [Asked(settings, (Figure("digits", "lora", seed),), {}) for seed in range(4)]
    compared = campaign.check_begun

    def slow(out: Path, plan: Any) -> None:
        time.sleep(0.2)  # so that all have read what was asked for when the first one writes
        compared(out, plan)

    monkeypatch.setattr(campaign, "check_begun", slow)
    with ThreadPoolExecutor() as pool:  # a lock is of an open file, so threads meet it, too
        list(pool.map(lambda wish: campaign.note(tmp_path, wish), wishes))
    assert merged(tmp_path, wishes[0]).figures == tuple(
        figure for wish in wishes for figure in wish.figures
    )


def test_groups_name_their_tasks_and_recipes_their_rows(folder: Path) -> None:
    assert tasks_of(["structured", "emoji"]) == [
        "emoji", "count", "distance", "heading", "x-position",
    ]  # fmt: skip
    rows, recipes = rows_of(["noah", f"noah@{folder / 'short.yaml'}"])
    assert (rows, list(recipes)) == (["noah", "noah@short"], ["short"])


def test_learning_rates_of_a_recipe_are_read_and_faults_named() -> None:
    found = parse_recipe(RECIPE, "small.yaml").protocol
    assert found is not None
    assert found.rates["lora"] == (1e-4, 2e-2)
    with pytest.raises(NoahnasError, match=r"small.yaml:\d+:\d+: .*lora"):
        parse_recipe(RECIPE.replace("[1e-4, 2e-2]", "[quick]"), "small.yaml")
    with pytest.raises(NoahnasError, match="unknown row 'lara'"):
        parse_recipe(RECIPE.replace("    lora: [1", "    lara: [1"), "small.yaml")
