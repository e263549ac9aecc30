"""The documentation is run: its commands, its Python, its files and its links."""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import noahnas
from noahnas import Arch, NoahnasError, Space
from noahnas.evaluate import Result
from noahnas.modules import Layout
from noahnas.recipe import parse_recipe
from noahnas.registry import installed
from noahnas.space import Shape, parse_space
from noahnas.strategy import Trial

from . import processes
from .test_package import RANK

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = [ROOT / "README.md"] if (ROOT / "README.md").exists() else []
PAGES = [*README, *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"(?P<indent> *)```(?P<language>[\w+-]*)(?P<info>[^`]*)$")
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHELL = ("bash", "console", "sh", "shell")
OUTSIDE = ("git", "cd", "source")  # what prepares the reader's shell
PIP = "--quiet --no-deps --no-build-isolation --target"  # into the page's own folder


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- reading a page --------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    line: int  # of the fence, from 1
    language: str
    title: str  # the file it is written to; "" for none
    run: bool
    body: str


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        at += 1
        if not fence:
            continue
        start, close = at, fence["indent"] + "```"
        while at < len(lines) and lines[at].rstrip() != close:
            at += 1
        title = re.search(r'title="([^"]+)"', fence["info"])
        above = lines[start - 2].strip() if start > 1 else ""
        body = textwrap.dedent("\n".join(lines[start:at])) + "\n"
        run = not NOT_RUN.search(above)
        found.append(Block(start, fence["language"], title[1] if title else "", run, body))
        at += 1
    return found


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a shell block with the output that the page shows for it."""
    command, shown = "", ""
    for line in body.replace("\\\n", " ").splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:].strip(), ""
        elif command:
            shown += line
        elif line.split()[:1] == ["noahnas"]:
            raise AssertionError(f"a command to be run starts with '$ ': {line.strip()}")
    if command:
        yield command, shown


# --- running a page --------------------------------------------------------------------------


def run_page(text: str, name: str, folder: Path) -> None:
    """Do in `folder` all that a page says, block by block, and compare what comes out."""
    names: dict[str, Any] = {"__name__": "__docs__"}
    with contextlib.chdir(folder):
        for block in (b for b in blocks(text) if b.run):
            where = f"{name}:{block.line}"
            if block.title and block.language != "text":
                path = folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.body, encoding="utf-8")
            if block.language in SHELL:
                for command, shown in commands(block.body):
                    run_command(command, shown, where, folder)
            elif block.language == "python" and not block.title:
                code = compile("\n" * block.line + block.body, name, "exec")
                exec(code, names)
            elif block.language == "pycon":
                run_session(block.body, names, where)
            elif block.language in ("yaml", "toml", "json") and "rep:" not in block.body:
                check_file(block, where)  # but what the page installs is not installed here


def run_command(command: str, shown: str, where: str, folder: Path) -> None:
    program, *rest = shlex.split(command)
    site = folder / "site-packages"
    if program.startswith("scripts/"):  # what they run is run by the other tests
        assert os.access(ROOT / program, os.X_OK), f"{where}: no script {program}"
        return
    if program in OUTSIDE:
        return
    run = {
        "pip": [sys.executable, "-m", "pip", *rest, *shlex.split(PIP), str(site)],
        "ls": ["ls", *rest],
        "cat": ["cat", *rest],
    }.get(program)
    assert run or program == "noahnas", (
        f"{where}: '{program}' is not run by this test; say `<!-- not run: WHY -->` above"
    )
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "PYTHONPATH": str(site),
        "HF_HUB_OFFLINE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "LC_ALL": "C.UTF-8",
    }
    if not run:
        done = processes.ran(*rest, cwd=folder, env=environment, merged=True)
    else:
        done = subprocess.run(
            run,
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
    wanted = 2 if re.search(r"\berror\b", shown, re.IGNORECASE) else 0
    told = f"{where}: $ {command}\n{done.stdout}"
    assert done.returncode == wanted, f"exit code {done.returncode}, not {wanted}\n{told}"
    assert not shown or pattern(shown).fullmatch(squeezed(done.stdout)), f"{shown}\n!=\n{told}"


def squeezed(text: str) -> str:
    """Runs of blanks as one, no blanks at the ends of lines, no empty lines at the ends."""
    lines = [re.sub(r" +", " ", line).rstrip() for line in text.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def pattern(shown: str) -> re.Pattern[str]:
    """What a page shows, with `...` for any lines, and within a line for any text."""
    parts = []
    for line in squeezed(shown).splitlines():
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*")
        else:
            parts.append(re.escape(line).replace(r"\ \.\.\.", r".*").replace(r"\.\.\.", ".*"))
            parts.append("\n")
    return re.compile("".join(parts))


def run_session(body: str, names: dict[str, Any], where: str) -> None:
    test = doctest.DocTestParser().get_doctest(body, names, where, where, 0)
    test.globs = names
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    result = runner.run(test, out=told.append, clear_globs=False)
    assert result.attempted, f"{where}: no >>> in it"
    assert not result.failed, "".join(told)


def check_file(block: Block, where: str) -> None:
    """A space, recipe or architecture is one, unless its title says that it is faulty."""
    if block.language == "toml":
        tomllib.loads(block.body)
    elif block.language == "json":
        json.loads(block.body)
    else:
        keys = yaml.safe_load(block.body)
        is_space, is_recipe = bool({"modules", "extends"} & set(keys)), "supernet" in keys
        parse = parse_space if is_space else parse_recipe if is_recipe else Arch.from_yaml
        faulty = block.title.startswith("faulty")
        with pytest.raises(NoahnasError) if faulty else contextlib.nullcontext():
            parse(block.body, where)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A page, run once; returns the folder that it was run in."""
    folders: dict[Path, Path] = {}

    def run(page: Path) -> Path:
        if page not in folders:
            folder = tmp_path_factory.mktemp(page.stem)
            run_page(page.read_text(encoding="utf-8"), named(page), folder)
            folders[page] = folder
        return folders[page]

    return run


# --- the pages -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p.read_text())], ids=named)
def test_what_a_page_says_is_what_happens(page: Path, ran: Any) -> None:
    ran(page)


@pytest.mark.parametrize(
    "page",
    [*PAGES, *(p for p in (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if p.exists())],
    ids=named,
)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    assert not dead_links(page.read_text(encoding="utf-8"), page.parent)


def dead_links(text: str, folder: Path) -> list[str]:
    for block in blocks(text):
        text = text.replace(block.body, "")
    targets = [target.partition("#")[0] for target in LINK.findall(text)]
    return [t for t in targets if t and ":" not in t and not (folder / t).exists()]


@pytest.mark.parametrize(
    "page",
    [
        "```console\n$ noahnas --version\nnoahnas 999\n```\n",
        "```console\n$ noahnas --no-such-option\n```\n",
        "```console\n$ no-such-program\n```\n",
        "```console\n$ scripts/no-such-script\n```\n",
        "```bash\nnoahnas search\n```\n",
        "```python\nx = 1\n```\n\n```pycon\n>>> x\n2\n```\n",
        "```yaml\nname: odd\nmodules: {adaptor: {dim: 1}}\n```\n",
    ],
)
def test_a_page_that_says_something_false_fails(page: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, NoahnasError)):
        run_page(page, "page", tmp_path)


def test_a_faulty_example_must_be_refused(tmp_path: Path) -> None:
    page = '```yaml title="faulty.yaml"\nname: fine\nmodules: {lora: {dim: 1}}\n```\n'
    with pytest.raises(pytest.fail.Exception):
        run_page(page, "page", tmp_path)


def test_only_a_block_with_a_reason_above_it_is_left_out(tmp_path: Path) -> None:
    block = "```python\nraise AssertionError\n```\n"
    run_page(f"<!-- not run: takes a GPU -->\n{block}", "page", tmp_path)
    with pytest.raises(AssertionError):
        run_page(f"<!-- not run: -->\n{block}", "page", tmp_path)


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    assert dead_links("[a](no.md#x) [b](https://c.d) `[e](f)`", tmp_path) == ["no.md", "f"]


# --- the strategy of write-a-strategy.md -----------------------------------------------------

STRATEGY_PAGE = DOCS / "write-a-strategy.md"


def strategy_source() -> str:
    found = [b.body for b in blocks(STRATEGY_PAGE.read_text()) if b.title.endswith("climb.py")]
    assert len(found) == 1
    return found[0]


def test_the_strategy_of_the_docs_is_at_most_30_lines() -> None:
    assert len(strategy_source().splitlines()) <= 30


def test_the_strategy_of_the_docs_is_installed_as_a_package_and_its_search_ends(ran: Any) -> None:
    assert "hillclimb" not in installed("noahnas.strategies")  # it comes by the page alone
    folder = ran(STRATEGY_PAGE)
    assert (folder / "site-packages" / "noahnas_hillclimb.py").read_text() == strategy_source()
    about = json.loads((folder / "runs/hillclimb/run.json").read_text())["inputs"]
    assert (about["strategy"], about["options"]) == ("hillclimb", {"first": "4"})
    assert json.loads((folder / "runs/hillclimb/result.json").read_text())["evaluations"] == 10


def test_the_strategy_of_the_docs_goes_on_from_a_history_as_if_never_stopped() -> None:
    names: dict[str, Any] = {"__name__": "docs"}
    exec(compile(strategy_source(), "noahnas_hillclimb.py", "exec"), names)
    kind = names["HillClimb"]
    space = Space.load("tiny").bind(blocks=4, width=48)
    whole = kind(space, 7, first=6)
    for _ in range(6):
        late = kind(space, 7, first=6)
        late.tell(whole.history)
        proposals = whole.ask(4)
        assert proposals
        assert late.ask(4) == proposals
        scores = [int(p.arch.digest, 16) / 16**16 for p in proposals]
        results = [
            Result(s, s, 1 - s, space.params(p.arch), 9, "val")
            for p, s in zip(proposals, scores, strict=True)
        ]
        whole.tell([Trial(p, r) for p, r in zip(proposals, results, strict=True)])
    archs = [trial.arch for trial in whole.history]
    assert len(set(archs)) == len(archs) > 20
    assert all(space.feasible(arch) for arch in archs)


# --- the module of write-a-module.md ---------------------------------------------------------

MODULE_PAGE = DOCS / "write-a-module.md"


def module_source() -> str:
    found = [b.body for b in blocks(MODULE_PAGE.read_text()) if b.title.endswith("_rep.py")]
    assert len(found) == 1
    return found[0]


def test_the_module_of_the_docs_is_under_60_lines() -> None:
    assert len(module_source().splitlines()) < 60


def test_the_module_of_the_docs_is_installed_as_a_package_and_searched(ran: Any) -> None:
    assert "rep" not in installed("noahnas.modules")  # it comes by the page alone
    folder = ran(MODULE_PAGE)
    assert (folder / "site-packages" / "noahnas_rep.py").read_text() == module_source()
    result = json.loads((folder / "runs/rep/result.json").read_text())
    assert result["evaluations"] == 4
    assert result["params"] <= 3000


def test_the_module_of_the_docs_fulfils_the_contract() -> None:
    names: dict[str, Any] = {"__name__": "docs"}
    exec(compile(module_source(), "noahnas_rep.py", "exec"), names)
    kind, shape = names["Rep"], Shape(blocks=1, width=12, tokens=5)
    values = {key: (value,) for key, value in kind.complete({}).items()}
    large, small = kind(shape, 6, values), kind(shape, 2, values)
    assert sum(p.numel() for p in small.parameters()) == kind.params(shape, 2)
    x = torch.randn(2, 5, 12)
    told, layout = kind.complete({"scale": 0.5}), Layout(1, 2, 2)
    assert all(torch.equal(large(site, x, x, 6, layout, **told), x) for site in kind.sites())
    for weight in large.parameters():
        torch.nn.init.normal_(weight)
    for name, weight in small.named_parameters():
        source = large.get_parameter(name)
        weight.data = source.data[tuple(slice(size) for size in weight.shape)].clone()
    for site in kind.sites():
        cut, whole = (m(site, x, x, 2, layout, **told) for m in (small, large))
        torch.testing.assert_close(cut, whole)
        assert not torch.allclose(whole, large(site, x, x, 6, layout, **told), atol=1e-3)


# --- what the pages state about the code -----------------------------------------------------


def test_the_design_page_states_the_import_order_that_holds() -> None:
    stated = [b for b in blocks((DOCS / "design.md").read_text()) if b.title == "import order"]
    (order,) = [block.body.replace("→", " ").split() for block in stated]
    assert order == sorted(order, key=RANK.__getitem__)
    package = ROOT / "noahnas"
    there = {p.stem for p in package.glob("*.py")} - {"__init__", "__main__"}
    there |= {p.parent.name for p in package.glob("*/__init__.py") if not p.parent.is_symlink()}
    assert set(order) == there


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == noahnas.__version__
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2206.04673"


def test_the_changelog_says_why_each_dependency_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w-]", d)[0] for d in project["dependencies"]}
    reasons = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("### Dependencies")[2]
    assert names == set(re.findall(r"^- `([\w-]+)`: \S", reasons, re.MULTILINE))
