"""The package: what may import what, and what is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    ("errors", "printable", "progress", "stopping", "files", "typed", "memory", "ranking"),
    ("registry",),
    ("space",),
    ("modules",),
    ("backbone",),
    ("normalise", "device", "ranks"),
    ("supernet",),
    ("prefixes",),
    ("data",),
    ("relax",),
    ("policy", "rundir", "evaluate"),
    ("recipe", "diagnose"),
    ("epochs",),
    ("augment",),
    ("train",),
    ("front",),
    ("strategy",),
    ("journal",),
    ("storage", "study"),
    ("search",),
    ("shared",),
    ("pool",),
    ("workers",),
    ("retrain", "probe"),
    ("report",),
    ("export", "interop"),
    ("inputs",),
    ("loaded",),
    ("stages",),
    ("pipeline",),
    ("follow",),
    ("fidelity",),
    ("compare",),
    ("protocols",),
    ("cli",),
    ("__main__",),
]
RANK = {name: i for i, names in enumerate(ORDER) for name in names}


def imports(path: Path) -> set[str]:
    """Parts of noahnas that a file imports anywhere in it; type-checking blocks count too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("noahnas.")}
    return found


def files() -> list[Path]:
    package = ROOT / "noahnas"
    return [
        p
        for p in package.rglob("*.py")
        if p.relative_to(package).parts[0] not in ("strategies", "search_spaces", "__init__.py")
    ]


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_those_before_it(path: Path) -> None:
    part = path.relative_to(ROOT / "noahnas").parts[0].removesuffix(".py")
    for other in imports(path):
        assert RANK.get(other, -1) <= RANK[part], f"{part} imports {other}"
    if len(path.relative_to(ROOT / "noahnas").parts) == 1:
        assert part not in imports(path)


ALLOWED = {"errors", "space", "strategy", "train", "supernet", "data", "evaluate"} | {
    "progress",
    "relax",
    "strategies",
    "rundir",
    "files",
}


@pytest.mark.parametrize("path", sorted((ROOT / "strategies").glob("*.py")), ids=lambda p: p.name)
def test_a_strategy_imports_only_the_protocol_and_the_space(path: Path) -> None:
    allowed = (
        ALLOWED
        if path.name == "nni_oneshot.py"
        else {"errors", "progress", "space", "front", "strategy", "strategies"}
    )
    assert imports(path) <= allowed


def test_the_packages_listed_are_the_directories_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package = ROOT / "noahnas"
    folders = (package, package / "strategies", package / "search_spaces")  # two are symlinks
    found = {
        ".".join(("noahnas", *p.parent.relative_to(package).parts))
        for folder in folders
        for p in folder.rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_the_wheel_holds_code_strategies_spaces_recipes_and_weights(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet",
         "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in (
        "noahnas/cli/__init__.py",
        "noahnas/strategies/evolution.py",
        "noahnas/search_spaces/noah-vtab.yaml",
        "noahnas/recipes/vtab-1k.yaml",
        "noahnas/assets/vit_digits.safetensors",
        "noahnas/assets/vit_nano_patch14_56.safetensors",
        "noahnas/assets/digits.npz",
        "noahnas/py.typed",
    ):
        assert file in names, file
    assert not [n for n in names if n.startswith(("strategies/", "search_spaces/", "tests/"))]


def test_the_embedded_digits_are_scikit_learn_s(tmp_path: Path) -> None:
    """The images come from scikit-learn unchanged."""
    import numpy as np
    from sklearn.datasets import load_digits

    archive = np.load(ROOT / "noahnas" / "assets" / "digits.npz")
    raw = load_digits()
    assert np.array_equal(archive["images"], raw.images)
    assert np.array_equal(archive["labels"], raw.target)


@pytest.mark.parametrize(("secret", "code"), [("AKIA" + "IOSFODNN7EXAMPLQ", 1), ("harmless", 0)])
def test_a_planted_secret_fails_the_check(secret: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(f'key = "{secret}"\n')
    done = subprocess.run(
        [ROOT / "scripts" / "secrets", tmp_path / "planted.py"], capture_output=True, check=False
    )
    assert done.returncode == code


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (None, 1, "pip-audit is not installed; install it: scripts/setup dev"),
        (subprocess.TimeoutExpired("pip_audit", 120), 0, "did not answer within 120 s"),
        (("", "trace\nOSError: no route"), 0, "cannot be reached: OSError: no route"),
        (('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', ""), 0, "1 of 1"),
    ],
)
def test_the_audit_tells_a_missing_tool_from_an_index_that_cannot_be_reached(
    answer: Any, code: int, told: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    loader = SourceFileLoader("audit", str(ROOT / "scripts" / "audit"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    audit = module_from_spec(spec_from_loader("audit", loader))
    loader.exec_module(audit)

    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess([], 1, *answer)

    monkeypatch.setattr(audit, "find_spec", lambda _: answer)
    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main() == code
    assert told in capsys.readouterr().err
