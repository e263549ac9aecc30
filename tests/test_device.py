"""Where forwards run, and in which precision."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from noahnas import Space, device
from noahnas.device import autocast, choose_precision
from noahnas.errors import NoahnasError
from noahnas.files import sealed_json
from noahnas.inputs import Inputs
from noahnas.pipeline import resume, start
from noahnas.recipe import Recipe

CPU = torch.device("cpu")


def test_fp32_changes_nothing_and_bf16_computes_matrix_products_in_bf16() -> None:
    a = torch.randn(4, 4)
    with autocast(CPU, "fp32"):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


def test_a_gradient_goes_through_attention_in_bf16_on_a_cpu_without_the_fused_kernel() -> None:
    q = torch.randn(1, 1, 4, 8, requires_grad=True)
    with autocast(CPU, "bf16"):
        out = F.scaled_dot_product_attention(q, q, q)
    found = out.grad_fn
    assert "Flash" not in type(found).__name__
    with autocast(CPU, "bf16"), torch.no_grad():  # the fused one is fast forwards
        fused = F.scaled_dot_product_attention(q, q, q)
    torch.testing.assert_close(out.float(), fused.float(), atol=0.02, rtol=0.02)


def test_a_precision_is_chosen_by_name() -> None:
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
    with pytest.raises(NoahnasError, match="unknown precision 'fp23'; did you mean 'fp32'"):
        choose_precision("fp23", CPU)


@pytest.mark.parametrize(
    ("machine", "able", "count"),
    [
        ("x86_64", "AVX512", 0),
        ("x86_64", "AVX2", 1),
        ("AMD64", "DEFAULT", 1),
        ("arm64", "DEFAULT", 0),
    ],
)
def test_where_bf16_is_slow_a_warning_says_so_once(
    machine: str,
    able: str,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a processor can do is mocked, as no test can choose its own."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: able)
    device._warn_where_slow.cache_clear()
    choose_precision("fp32", CPU)
    assert not caplog.messages
    choose_precision("bf16", CPU)
    choose_precision("bf16", CPU)
    device._warn_where_slow.cache_clear()
    assert len(caplog.messages) == count
    assert all("use --precision fp32" in text for text in caplog.messages)


def test_a_run_records_its_precision_and_goes_on_in_it(tmp_path: Path, recipe: Recipe) -> None:
    short = replace(recipe, supernet=recipe.supernet.of_epochs(1), trials=2, batch=2)
    inputs = Inputs(
        "digits", "vit-digits", replace(short, retrain=short.retrain.of_epochs(1)),
        space=Space.load("tiny"), strategy="random", probe=False, precision="bf16",
    )  # fmt: skip
    whole = start(tmp_path / "run", inputs)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["precision"] == "bf16"
    stages = json.loads((tmp_path / "run" / "stages.json").read_text())
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "stages.json").write_bytes(
        sealed_json({key: stages[key] for key in ("supernet", "spread", "search")})
    )
    again = resume(tmp_path / "run")
    assert again["test"] == whole["test"]
    plain = start(tmp_path / "plain", replace(inputs, precision="fp32"))
    assert plain["val"]["loss"] != whole["val"]["loss"]
