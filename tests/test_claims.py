"""What the pages claim of micro-VTAB is what the committed results say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from noahnas.rundir import RunDirectory

from .conftest import invoke

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/micro_vtab/results"
KEPT = RESULTS / "vit-nano"
TABLES = [KEPT, RESULTS / "vit-s"]


def script(name: str) -> ModuleType:
    """One of the scripts that write the pages."""
    found = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/micro_vtab/{name}.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up
    sys.path.insert(0, str(ROOT / "benchmarks/micro_vtab"))
    try:
        found.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks/micro_vtab"))
    return module


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return script("table")


def section(page: str, name: str) -> str:
    """What a page says between a section's marks."""
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    _, _, after = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(begin)
    said, found, _ = after.partition(end)
    assert found, f"{page} has no section {name}"
    return said.strip("\n")


@pytest.mark.parametrize("kept", TABLES, ids=lambda kept: kept.name)
def test_pages_say_what_the_table_says(table: ModuleType, kept: Path) -> None:
    for (page, name), text in table.sections(kept).items():
        assert section(page, name) == text


@pytest.mark.parametrize(
    ("page", "start"),
    [("../README.md", "**[Is the search worth it?]"), ("claims.md", "## In short")],
)
def test_what_is_said_in_short_are_figures_of_the_table(page: str, start: str) -> None:
    text = (ROOT / "docs" / page).read_text().replace("\u2212", "-")
    text = " ".join(text.partition(start)[2].partition("<!--")[0].split())
    table = section("claims.md", "table")
    figures = re.findall(r"[+-]\d+\.\d points \[[^]]*\]", text)
    assert len(figures) >= 3
    for figure in figures:
        assert figure in table, figure
    (share,) = re.findall(r"\d+\.\d%", text)
    assert f"| {share} |" in table


QUICK = """\
name: quick
description: for tests
supernet: {epochs: 1, lr: 5e-3, batch_size: 64}
policy: paper
trials: 4
batch: 4
retrain: {epochs: 1, lr: 5e-3, batch_size: 64}
retrain_epochs: [1, 2]
"""


def test_a_winner_retrained_again_as_it_was_comes_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text(QUICK)
    words = ["search", "--data", "digits", "--backbone", "vit-digits", "--space", "tiny"]
    words += ["--recipe", str(tmp_path / "quick.yaml"), "--precision", "bf16", "--json"]
    code, printed, error = invoke(*words, "--out", str(tmp_path / "run"))
    assert code == 0, error
    told, run = json.loads(printed), RunDirectory.open(tmp_path / "run")
    again = script("again").again
    same = again(run)
    assert same["test"] == told["test"]
    taken = told["epochs"]["taken"]
    passes = [found["cost"]["retrain"]["passes"] for found in (again(run, epochs=3 - taken), same)]
    assert passes[0] * taken == passes[1] * (3 - taken)
    assert again(run, precision="fp32")["test"]["loss"] != told["test"]["loss"]


@pytest.mark.parametrize(
    ("name", "key"), [("changes", "changes"), ("epochs", "runs"), ("longer", "runs")]
)
def test_a_section_says_what_its_script_measured(name: str, key: str) -> None:
    told = json.loads((ROOT / f"benchmarks/results/micro_vtab_{name}.json").read_text())[key]
    assert section("claims.md", name) == script(name).page(told)


@pytest.mark.parametrize("kept", TABLES, ids=lambda kept: kept.name)
def test_the_table_is_of_the_committed_runs(kept: Path) -> None:
    told = json.loads((kept / "micro-vtab.json").read_text())
    assert told["rows"]
    for row, found in told["rows"].items():
        for task, scores in found["tasks"].items():
            for seed, accuracy in scores["seeds"].items():
                file = kept / task / row / f"seed-{seed}" / "result.json"
                assert json.loads(file.read_text())["test"]["accuracy"] == accuracy, file


def test_under_other_recipes_search_is_held_against_chance_of_the_same_tasks_and_seeds() -> None:
    told = json.loads((KEPT / "micro-vtab.json").read_text())
    found = {row["against"]: row for row in told["answers"]["feasible_alike"]}
    assert "feasible@micro-vtab-chosen-epochs" in found
    for chance, row in found.items():
        noah = told["rows"][chance.replace("feasible", "noah")]["tasks"]
        pairs = [
            noah[task]["seeds"][seed] - accuracy
            for task, scores in told["rows"][chance]["tasks"].items()
            for seed, accuracy in scores["seeds"].items()
        ]
        assert row["pairs"] == len(pairs)
        assert row["difference"]["mean"] == pytest.approx(sum(pairs) / len(pairs))


def test_the_brief_names_each_recipe_once_the_best_first_and_which_keep(table: ModuleType) -> None:
    told = json.loads((KEPT / "micro-vtab.json").read_text())
    *answers, recipes = table.brief(told)
    curve = told["curve"]
    held = [row for row in curve["held"] if row["against"] == curve["reference"]]
    tasks = told["about"]["tasks"]
    asked = [
        row
        for kind in ("singles", "feasible")
        for rows in (told["answers"][kind], told["answers"][f"{kind}_alike"])
        for row in rows
        if "@" not in row["row"] or row["tasks"] == tasks
    ]
    assert answers == [row["sentence"] for row in asked]
    each = recipes.partition("): ")[2].removesuffix(".").split("; ")
    assert len(each) == len(held) > 0
    shown = [float(text.split(": ")[1].split()[0]) for text in each]
    assert shown == sorted(shown, reverse=True)
    own = told["about"]["recipe"]["name"]
    for end, beyond in ((", kept", True), (", kept on these tasks", False)):
        kept = {text.split(",")[0] for text in each if text.endswith(end)}
        which = (row["row"] for row in held if row["keeps"] and row["keeps_beyond"] == beyond)
        assert kept == {row.partition("@")[2] or own for row in which}
    told["curve"] = None
    assert table.brief(told) == answers


def test_a_kept_supernet_counts_as_done_only_where_nothing_is_left_to_search_it(
    table: ModuleType, tmp_path: Path
) -> None:
    runs = ["supernet/seed-0", "noah/seed-0", "supernet/seed-1", "noah/seed-1", "random/seed-1"]
    runs += [row.replace("/", "@short/") for row in runs]
    for run in runs:
        for name in ("run.json", "result.json"):
            path = tmp_path / "kept/emoji" / run / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(run)

    def taken(*rows: str) -> set[str]:
        out = tmp_path / "-".join(rows)
        table.take_up(tmp_path / "kept", out, rows)
        return {str(p.parent.relative_to(out / "emoji")) for p in out.rglob("result.json")}

    assert taken("noah") == set(runs)
    assert taken("noah", "random") == set(runs) - {"supernet/seed-0"}
    assert taken("random@short") == set(runs) - {"supernet@short/seed-0"}
