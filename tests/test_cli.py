"""The command line, as real processes."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import noahnas
from noahnas import Arch, Space, diagnose
from noahnas.__main__ import main
from noahnas.cli import app
from noahnas.cli.given import data_of, recipe_of
from noahnas.cli.options import DEFAULT_DATA
from noahnas.data.tasks import COUNTS
from noahnas.export import Tuned
from noahnas.files import read_sealed_json, sealed_json

from .conftest import draw_images, invoke
from .processes import ran
from .speed import within

ARCHS = Path(__file__).parent / "archs"
SHORT, STRANGE = str(ARCHS / "short.yaml"), str(ARCHS / "strange.yaml")
SMALL = ["--backbone", "vit-digits"]
QUICK = [*SMALL, "--trials", "10", "--supernet-epochs", "2", "--retrain-epochs", "2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished search on a folder of images, and what it printed as JSON."""
    root = tmp_path_factory.mktemp("search")
    draw_images(root / "images", ["ant", "bee", "cat"], 20)
    done = ran("search", "--data", "images", "--out", "run", "--json", *QUICK, cwd=root)
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)


def test_help_takes_under_0_3_seconds_and_loads_no_torch() -> None:
    """Processor seconds of the process: what a clock says depends on what else is running."""
    times = []
    command = [Path(sys.executable).with_name("noahnas"), "--help"]  # the installed script
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "search" in done.stdout
    assert within(min(times), 0.3)
    code = "import sys, noahnas.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_directory_holds_all_inputs_and_results(finished: tuple[Path, dict]) -> None:
    root, printed = finished
    names = {p.name for p in (root / "run").iterdir()}
    assert {"run.json", "study.journal", "supernet.safetensors", "best.yaml", "best.safetensors",
            "result.json"} <= names  # fmt: skip
    assert not [n for n in names if n.endswith(".ckpt")]
    about = json.loads((root / "run" / "run.json").read_text())
    assert about["inputs"]["seed"] == 0
    assert about["inputs"]["data"] == str(root / "images")
    assert set(about["digests"]) == {"backbone", "data"}
    assert {"torch", "timm", "optuna", "noahnas", "python", "pillow"} <= set(about["versions"])
    assert about["strategy_from"].startswith("noahnas ")
    assert about["classes"] == ["ant", "bee", "cat"]
    assert about["images"] == {"train": 36, "val": 12, "test": 12}
    result = read_sealed_json((root / "run" / "result.json").read_bytes())
    assert printed == {"run": "run"} | result
    assert set(result["cost"]) == {"supernet", "spread", "search", "retrain", "probe"}
    assert result["cost"]["search"]["passes"] == 10 * 12
    assert result["cost"]["retrain"]["passes"] == 2 * 48 * 3
    assert result["cost"]["spread"]["passes"] == 30 * 12
    assert not result["binding"]["largest_feasible"]
    assert 0 < result["binding"]["share"] <= 0.25
    assert result["spread"]["archs"] == 30
    assert result["params_with_head"] == result["params"] + 48 * 3 + 3
    assert (result["val"]["split"], result["test"]["split"]) == ("val", "test")
    assert noahnas.Arch.load(root / "run" / "best.yaml").to_dict() == result["arch"]
    assert result["params"] <= 2000


def test_load_gives_a_module_that_scores_what_the_run_reported(
    finished: tuple[Path, dict],
) -> None:
    root, printed = finished
    model = noahnas.load(root / "run")
    assert isinstance(model, Tuned)
    assert not model.training
    data = noahnas.data.load_data(
        str(root / "images"), noahnas.data.LoadOptions(model.preprocess.size)
    )
    hits = 0
    for x, y in data.test.batches(8, model.preprocess, torch.device("cpu")):
        hits += int((model(x).argmax(1) == y).sum())
    assert hits / len(data.test) == pytest.approx(printed["test"]["accuracy"])


def test_predict_names_classes_and_probabilities(finished: tuple[Path, dict]) -> None:
    root, _ = finished
    files = [str(root / "images" / name / "000.png") for name in ("ant", "bee")]
    done = ran("predict", str(root / "run"), *files, "--json")
    told = json.loads(done.stdout)
    assert [t["path"] for t in told] == files
    expected = noahnas.load(root / "run").predict(files)
    assert [t["label"] for t in told] == [p.label for p in expected]
    assert all(0 < t["probability"] <= 1 for t in told)
    assert "probability" in ran("predict", str(root / "run"), *files).stdout


def test_retrain_repeats_a_winner_with_another_seed_in_a_new_run(
    finished: tuple[Path, dict], tmp_path: Path
) -> None:
    root, printed = finished
    done = ran("retrain", str(root / "run"), "--seed", "1", "--out", str(tmp_path / "r"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["arch"] == printed["arch"]
    assert told["seed"] == 1
    assert told["data"] == str(root / "images")
    assert noahnas.load(tmp_path / "r").arch == noahnas.Arch.from_dict(printed["arch"])


def test_retrain_trains_an_architecture_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lora: [2, 0, 0, 1]\n")
    own = (*SMALL, "--data", "digits", "--arch", "mine.yaml", "--retrain-epochs", "2")
    done = ran("retrain", *own, "--out", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "576 prompt" in done.stdout


def test_a_table_ends_the_command_and_progress_goes_to_stderr(tmp_path: Path) -> None:
    done = ran("search", "--strategy", "random", "--data", "digits", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test, linear probe" in done.stdout
    assert "supernet 2/2" in done.stderr
    assert "supernet 2/2" not in done.stdout
    assert re.search(r"search 10/10 · best val 0\.\d+", done.stderr)
    assert len(list((tmp_path / "runs").glob("random-*"))) == 1


def reuse(finished: tuple[Path, dict], *args: str) -> subprocess.CompletedProcess[str]:
    root, _ = finished
    return ran("search", "--supernet", "run", "--strategy", "random", *QUICK[:4], *args, cwd=root)


def test_another_run_s_supernet_is_searched_and_its_cost_is_still_told(
    finished: tuple[Path, dict],
) -> None:
    root, printed = finished
    done = reuse(finished, "--data", "images", "--out", "reused", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    cost = told["cost"]["supernet"]
    assert cost["reused"] == str(root / "run")
    assert cost["passes"] == printed["cost"]["supernet"]["passes"]
    weights = [load_file(root / name / "supernet.safetensors") for name in ("run", "reused")]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert "supernet 2/2" not in done.stderr
    assert noahnas.load(root / "reused").arch == noahnas.Arch.from_dict(told["arch"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data", "digits"), "its data is"),
        (("--data", "images", "--space", "lora-only"), "its space is"),
        (("--data", "images", "--backbone", "OTHER"), "its backbone is"),
    ],
)
def test_a_supernet_that_does_not_fit_is_refused_with_what_differs(
    finished: tuple[Path, dict], args: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    asset = files("noahnas").joinpath("assets", "vit_digits.safetensors")
    with as_file(asset) as path, safe_open(path, framework="pt") as f:
        weights = {key: f.get_tensor(key) * 1.01 for key in f.keys()}  # noqa: SIM118
        save_file(weights, other, f.metadata())
    args = tuple(str(other) if a == "OTHER" else a for a in args)
    if "lora-only" not in args:
        args = (*args, "--space", "tiny")
    done = reuse(finished, *args, "--out", str(tmp_path / "r"))
    assert done.returncode == 2
    assert "does not fit" in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "r").exists()


def test_rules_may_be_added_to_what_a_supernet_was_trained_on_but_not_left_out(
    finished: tuple[Path, dict], tmp_path: Path
) -> None:
    root, _ = finished
    ruled = tmp_path / "ruled.yaml"
    ruled.write_text("name: ruled\nextends: tiny\nrules: [adapter.depth <= lora.depth]\n")
    images = ("--data", str(root / "images"), *QUICK, "--trials", "4")
    added = ("--supernet", str(root / "run"), "--space", str(ruled), "--out", str(tmp_path / "a"))
    code, _, err = invoke("search", *images, *added)
    assert code == 0, err
    code, _, err = invoke("search", *images, "--space", str(ruled), "--out", str(tmp_path / "b"))
    assert code == 0, err
    left = ("--supernet", str(tmp_path / "b"), "--space", "tiny", "--out", str(tmp_path / "c"))
    code, _, err = invoke("search", *images, *left)
    assert code == 2
    assert "under rules that are not asked for: adapter.depth <= lora.depth" in err


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_an_existing_directory_is_never_overwritten(finished: tuple[Path, dict]) -> None:
    root, _ = finished
    before = snapshot(root / "run")
    done = ran("search", "--out", "run", *QUICK, cwd=root)
    assert done.returncode == 2
    assert "exists and is not empty" in done.stderr
    assert snapshot(root / "run") == before


def test_a_finished_run_that_is_resumed_prints_its_result_again(
    finished: tuple[Path, dict],
) -> None:
    root, printed = finished
    before = snapshot(root / "run")
    done = ran("search", "--resume", "run", "--json", cwd=root)
    assert json.loads(done.stdout) == printed
    assert snapshot(root / "run") == before


def test_data_that_has_changed_is_refused_at_resume(tmp_path: Path) -> None:
    draw_images(tmp_path / "images", ["ant", "bee"], 6)
    assert ran("search", "--data", "images", "--out", "run", *QUICK, cwd=tmp_path).returncode == 0
    (tmp_path / "run" / "result.json").unlink()
    shutil.copy(tmp_path / "images/ant/000.png", tmp_path / "images/ant/099.png")
    done = ran("search", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "the data has changed" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["search", "--strategy", "evolutoin"], "did you mean 'evolution'?"),
        (["search", "--space", "tini"], "did you mean 'tiny'?"),
        (["search", "--data", "digit"], "did you mean 'digits'?"),
        (["search", "--recipe", "vtab1k"], "did you mean 'vtab-1k'?"),
        (["search", "--backbone", "no.safetensors"], "no such file"),
        (["search", "--device", "tpu"], "unknown device 'tpu'"),
        (["search", "--set", "population"], "is not NAME=VALUE"),
        (["search", "--budget", "much"], "is not a count"),
        (["search", *SMALL, "--budget", "3"], "the cheapest arch has 385"),
        (["search", *SMALL, "--space", "noah-vtab"], "exceeds the backbone's 4 blocks"),
        (["search", "--resume", "absent"], "is no run"),
        (["search", "--resume", "absent", "--seed", "2"], "leave out --seed"),
        (["retrain", "mine", "--resume", "absent"], "leave out RUN"),
        (["retrain"], "--arch FILE"),
        (["retrain", "--arch", "absent.yaml"], "no such file"),
        (["retrain", *SMALL, "--arch", SHORT], "the arch has 2 blocks, the backbone 4"),
        (["retrain", *SMALL, "--arch", STRANGE], "unknown module 'lara'; did you mean 'lora'?"),
        (["search", *SMALL, "--supernet", "absent"], "absent holds no trained supernet"),
        (["predict", "absent", "x.png"], "is no run"),
        (["space", "check", "absent.yaml"], "no such file"),
        (["serch"], "No such command 'serch'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_s_mistake_ends_in_one_message_and_exit_code_2(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["noahnas", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_a_mistake_shows_no_traceback(tmp_path: Path) -> None:
    done = ran("search", "--strategy", "evolutoin", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown strategy 'evolutoin'")
    assert len(done.stderr.splitlines()) == 1


def test_space_check_prints_every_fault_with_its_line(tmp_path: Path) -> None:
    broken = Path(__file__).parent / "broken_spaces" / "unknown-keys-1.yaml"
    done = ran("space", "check", str(broken))
    assert done.returncode == 2
    assert f"{broken}:6:3: unknown module 'adaptor'; did you mean 'adapter'?" in done.stderr
    assert f"{broken}:7:23:" in done.stderr
    fine = ran("space", "check", "noah-vtab", "--json")
    assert json.loads(fine.stdout)["size"] == 168086938404672000
    assert json.loads(fine.stdout)["feasible"] == 168086938404671323
    assert "168086938404672000 distinct" in ran("space", "check", "noah-vtab").stdout


def test_without_options_it_counts_objects_on_the_embedded_vit_in_a_binding_space(
    tmp_path: Path,
) -> None:
    few = ("--trials", "2", "--supernet-epochs", "1", "--retrain-epochs", "1", "--out", "r")
    done = ran("search", *few, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["backbone"], told["data"], told["space"]) == ("vit-nano", "count", "demo")
    assert (told["strategy"], told["recipe"]) == ("evolution", "demo, changed")
    assert told["params"] <= told["budget"] == 20_000
    assert not told["binding"]["largest_feasible"]
    assert told["probe"]["accuracy"] > 0.5  # eight classes


def test_what_is_not_embedded_is_searched_by_the_default_recipe() -> None:
    assert recipe_of(None, "photos").name == "default"
    assert recipe_of(None, "digits").name == "demo"
    assert recipe_of("vtab-1k", "digits").name == "vtab-1k"


def test_the_default_search_costs_at_most_250_000_passes() -> None:
    recipe = recipe_of(None, DEFAULT_DATA)
    train, val = COUNTS["train"], COUNTS["val"]
    supernet = 3 * train * recipe.supernet.epochs
    retrain = 3 * (train + val) * recipe.retrain.epochs
    assert recipe.retrain_epochs == ()
    assert supernet + (diagnose.ARCHS + recipe.trials) * val + retrain + train + val <= 250_000


def test_an_option_has_the_same_short_form_in_every_command() -> None:
    short: dict[str, set[tuple[str, ...]]] = {}

    def walk(command: Any) -> None:
        for part in getattr(command, "commands", {}).values():
            walk(part)
        for option in (p for p in command.params if p.param_type_name == "option"):
            (name,) = (o for o in option.opts if o.startswith("--"))
            short.setdefault(name, set()).add(tuple(o for o in option.opts if o != name))

    walk(typer.main.get_command(app))
    assert {name: forms for name, forms in short.items() if len(forms) > 1} == {}
    assert (short["--out"], short["--archs"]) == ({("-o",)}, {("-n",)})


def test_lists_are_printed_as_tables_and_as_json() -> None:
    spaces = json.loads(ran("space", "list", "--json").stdout)
    assert {"tiny", "noah-vtab"} <= {s["name"] for s in spaces}
    assert "tiny" in ran("space", "list").stdout
    found = {s["name"]: s for s in json.loads(ran("strategies", "--json").stdout)}
    assert found["evolution"]["options"]["population"] == 50
    assert "evolution" in ran("strategies").stdout


def test_an_image_that_cannot_be_read_is_named(finished: tuple[Path, dict], tmp_path: Path) -> None:
    root, _ = finished
    (tmp_path / "bad.png").write_bytes(b"no")
    done = ran("predict", str(root / "run"), str(tmp_path / "bad.png"))
    assert done.returncode == 2
    assert "bad.png" in done.stderr


@pytest.mark.parametrize(
    ("file", "content", "command"),
    [
        ("run.json", "{}", "resume"),
        ("result.json", "{}", "resume"),
        ("result.json", "[]", "predict"),
        ("study.journal", "null\n", "search again"),
    ],
)
def test_a_damaged_run_is_named_and_shows_no_traceback(
    finished: tuple[Path, dict], tmp_path: Path, file: str, content: str, command: str
) -> None:
    root, _ = finished
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    args = ["search", "--resume", str(tmp_path / "run")]
    if command == "predict":
        args = ["predict", str(tmp_path / "run"), str(root / "images/ant/000.png")]
    if file in ("run.json", "study.journal"):
        (tmp_path / "run" / "result.json").unlink()
    if file == "study.journal":
        stages = json.loads((tmp_path / "run" / "stages.json").read_text())
        kept = {name: stages[name] for name in ("supernet", "spread")}
        (tmp_path / "run" / "stages.json").write_bytes(sealed_json(kept))
    done = ran(*args)
    assert done.returncode == 2
    assert file in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_with_another_run_s_supernet_is_resumed_without_that_run(
    finished: tuple[Path, dict], tmp_path: Path
) -> None:
    root, _ = finished
    shutil.copytree(root / "run", tmp_path / "source")
    shutil.copytree(root / "images", tmp_path / "elsewhere")  # the same pictures are the same data
    given = ("--data", "elsewhere", "--supernet", "source", "--out", "mine")
    assert ran("search", *given, *QUICK, cwd=tmp_path).returncode == 0
    (tmp_path / "mine" / "result.json").unlink()
    shutil.rmtree(tmp_path / "source")
    assert ran("search", "--resume", "mine", cwd=tmp_path).returncode == 0


def test_a_run_begun_on_another_device_is_refused(
    finished: tuple[Path, dict], tmp_path: Path
) -> None:
    root, _ = finished
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_bytes(sealed_json(about | {"device": "cuda"}))
    done = ran("search", "--resume", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "was begun on cuda, this is cpu" in done.stderr


def test_a_name_beats_a_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "count").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_of("count") == "count"
    assert data_of("folder:count") == f"folder:{tmp_path / 'count'}"
    (tmp_path / "mine").mkdir()
    assert data_of("mine") == str(tmp_path / "mine")
    assert data_of("torch/mnist:mine") == f"torch/mnist:{tmp_path / 'mine'}"


def test_a_run_whose_weights_were_tampered_with_is_refused(
    finished: tuple[Path, dict], tmp_path: Path
) -> None:
    root, _ = finished
    shutil.copytree(root / "run", tmp_path / "run")
    weights = tmp_path / "run" / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = ran("predict", str(tmp_path / "run"), str(root / "images/ant/000.png"))
    assert done.returncode == 2
    assert "best.safetensors" in done.stderr


def test_space_commands_show_sample_compare_and_describe_the_file_s_schema(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nextends: tiny\nmodules: {vpt: null, lora: {tie: pairs}}\n"
        "budget: {params: 50% of dearest}\nrules: [lora.depth <= adapter.depth]\n"
    )
    small = ("--backbone", "vit-digits")
    shown = ran("space", "show", str(file), *small).stdout
    assert "│     1 │ ▓ 1 2 4 8 │ ▓ 1 2 4 8 ┘ │" in shown
    assert "rule: lora.depth <= adapter.depth" in shown
    assert "at most 4,720 parameters (50% of dearest)" in shown
    genes = json.loads(ran("space", "show", str(file), *small, "--json").stdout)["genes"]
    assert {"name": "lora.dim.0-1", "choices": [1, 2, 4, 8], "blocks": [0, 1]} in genes

    space = Space.load(file).bind(blocks=4, width=48)
    drawn = ran("space", "sample", str(file), "--archs", "3", *small, "--json")
    for entry in json.loads(drawn.stdout):
        arch = Arch.from_dict(entry["arch"])
        assert arch in space
        assert space.feasible(arch)
        assert entry["digest"] == arch.digest
    documents = ran("space", "sample", str(file), "-n", "2", "--seed", "3", *small).stdout
    archs = [Arch.from_yaml(text) for text in documents.split("---\n")]
    assert archs == space.sample(np.random.default_rng(3), 2)

    told = json.loads(ran("space", "diff", "tiny", str(file), "--json").stdout)
    assert told["modules.lora.tie"] == [None, "pairs"]
    assert told["modules.vpt.dim"] == [[1, 2, 4, 8], None]
    assert "no difference" in ran("space", "diff", "tiny", "tiny").stdout
    shipped = Path(__file__).parents[1] / "search_spaces" / "space.schema.json"
    assert ran("space", "schema").stdout == shipped.read_text()


def test_space_check_warns_when_the_budget_hardly_binds_or_hardly_anything_meets_it(
    tmp_path: Path,
) -> None:
    loose = json.loads(ran("space", "check", "noah-vtab", "--json").stdout)
    assert "the budget hardly binds" in loose["warnings"][0]
    assert loose["cheapest_arch"] == {m: [1] * 3 + [0] * 9 for m in ("adapter", "lora", "vpt")}
    tight = tmp_path / "tight.yaml"
    tight.write_text("name: t\nextends: noah-fewshot\nbudget: {params: 0.3M}\n")
    found = json.loads(ran("space", "check", str(tight), "--json").stdout)
    assert found["feasible_share_of_paper_prior"] < 0.005
    assert "hardly anything of the paper prior" in found["warnings"][0]
    fine = json.loads(ran("space", "check", "demo", "--backbone", "vit-nano", "--json").stdout)
    assert fine["warnings"] == []
