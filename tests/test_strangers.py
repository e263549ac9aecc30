"""What others made is read without running code of theirs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from noahnas.backbone import Backbone
from noahnas.data import Dataset, Task
from noahnas.errors import RunError
from noahnas.files import sealed
from noahnas.policy import only
from noahnas.recipe import Stage
from noahnas.space import Arch
from noahnas.train import build, train

from .conftest import invoke


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_is_not_run(
    tmp_path: Path, backbone: Backbone, digits: Dataset, stage: Stage
) -> None:
    content = io.BytesIO()
    torch.save({"key": "x", "weights": Trap(tmp_path / "sprung")}, content)
    (tmp_path / "x.ckpt").write_bytes(sealed(content.getvalue()))
    arch = Arch(lora=(1, 0, 0, 0))
    task = Task(digits, backbone.preprocess, torch.device("cpu"))
    net = build(backbone, arch, 5, stage, 0)
    with pytest.raises(RunError, match=r"x\.ckpt is damaged"):
        train(
            net, task, digits.train, stage, name="x", plan=only(arch), seed=0,
            checkpoint=tmp_path / "x.ckpt",
        )  # fmt: skip
    assert not (tmp_path / "sprung").exists()


def test_plug_ins_are_listed_with_the_package_that_brings_them(gate: None) -> None:
    code, out, _ = invoke("plugins", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {row["kind"] for row in rows} == {"strategies", "modules", "data"}
    ours = next(row for row in rows if row["name"] == "evolution")
    assert ours["from"].startswith("noahnas ")
    assert ours["code"] == "noahnas.strategies.evolution:Evolution"
    _, out, _ = invoke("plugins", "--foreign", "--json")
    assert [row["name"] for row in json.loads(out)] == ["gate"]
    assert not json.loads(out)[0]["from"].startswith("noahnas ")
