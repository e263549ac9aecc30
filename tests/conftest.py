"""Small real things that many tests use."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from noahnas import Arch, Space, Supernet
from noahnas.backbone import Backbone, load_backbone
from noahnas.cli import app
from noahnas.data import Dataset, LoadOptions, load_data
from noahnas.data.cache import cache_dir
from noahnas.errors import NoahnasError
from noahnas.recipe import Recipe, Stage
from noahnas.registry import installed, resolve

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
FETCHED = cache_dir()  # the user's own cache: sets that were fetched there are tested, too
os.environ["NOAHNAS_CACHE"] = tempfile.mkdtemp(prefix="noahnas-test-cache-")
atexit.register(shutil.rmtree, os.environ["NOAHNAS_CACHE"], ignore_errors=True)
SHARING = {
    f"tests/{file.name}"
    for file in Path(__file__).parent.glob("test_*.py")
    if 'scope="module"' in file.read_text(encoding="utf-8")
}
torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "noahnas",
    deadline=None,
    derandomize="CI" in os.environ,  # the same examples whenever CI runs
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("noahnas")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a file that shares runs go to one process, so that these are made once.

    `--dist loadgroup`, which is for that, does nothing in pytest 9.2 with xdist 3.8.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in SHARING else nodeid

    return ByFile(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command that ends in this process leaves signals ignored; children would inherit that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before, hook = {number: signal.getsignal(number) for number in numbers}, sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def backbone() -> Backbone:
    """The embedded pretrained ViT: 4 blocks, width 48, 16×16 input."""
    return load_backbone("vit-digits")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_data("digits", LoadOptions((16, 16)))


@pytest.fixture
def space() -> Space:
    return Space.load("tiny").bind(blocks=4, width=48)


@pytest.fixture
def stage() -> Stage:
    return Stage(epochs=2, lr=2e-3, batch_size=64, warmup_epochs=1, drop_path=0.1, dropout=0.1)


@pytest.fixture
def recipe(stage: Stage) -> Recipe:
    return Recipe("quick", "for tests", stage, "paper", trials=12, batch=5, retrain=stage)


def awake(net: Supernet, seed: int = 0) -> Supernet:
    """The network, every prompt weight drawn anew: fresh ones add nothing, which hides faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.startswith("prompts."):
                weight.normal_(0, 0.3, generator=generator)
    return net


def draw_images(root: Path, folders: list[str], count: int, seed: int = 0) -> None:
    """Image files, all different, bright at a place that the folder's name decides."""
    for folder in folders:
        rng = np.random.default_rng([seed, *f"{root.name}/{folder}".encode()])
        (root / folder).mkdir(parents=True, exist_ok=True)
        place = sum(folder.rpartition("/")[2].encode()) % 3
        for i in range(count):
            image = rng.integers(0, 90, (20, 24, 3), dtype=np.uint8)
            image[:, place * 8 : place * 8 + 8] += 150
            Image.fromarray(image).save(root / folder / f"{i:03}.png")


def invoke(*args: str) -> tuple[int, str, str]:
    """Exit code, stdout and the error that the command line would print."""
    done = CliRunner().invoke(app, [*args])
    if isinstance(done.exception, NoahnasError):
        return 2, done.stdout, str(done.exception)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


FULL = Arch(adapter=(8,) * 4, lora=(8,) * 4, vpt=(8,) * 4)


@pytest.fixture(scope="module")
def gate() -> Iterator[None]:
    """A third party's package is installed: the module `gate`, with attributes of every kind."""
    plugins = str(Path(__file__).parent / "plugins")
    sys.path.insert(0, plugins)
    installed.cache_clear()
    yield
    sys.path.remove(plugins)
    installed.cache_clear()
    resolve.cache_clear()
