"""Our supernet reproduces tensors computed by NOAH's original code (tests/reference)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from noahnas import Arch
from noahnas.interop.noah import renamed, supernet_from_state_dict
from noahnas.supernet import Supernet

HERE = Path(__file__).parent / "reference"
TENSORS = load_file(HERE / "noah_supernet.safetensors")
CASES = json.loads((HERE / "noah_supernet.json").read_text())["cases"]
TOLERANCE = 1e-5  # absolute


def supernet() -> Supernet:
    state = {k.removeprefix("state."): v for k, v in TENSORS.items() if k.startswith("state.")}
    return supernet_from_state_dict(state, num_heads=4)


def original_gradients(case: int) -> dict[str, torch.Tensor]:
    """The live gradients of a case under our names; the up bias was saved under its alias."""
    prefix = f"case{case}.grad."
    found = {}
    for key, value in TENSORS.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix).replace("adapter.sampled_bias_1", "adapter.ln2.bias")
            ours = renamed(name)
            if ours:
                found[ours] = value[0] if ours.endswith(".tokens") else value
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['id']}")
def test_logits_loss_and_every_live_gradient_equal_the_original(case: dict) -> None:
    net = supernet()
    arch = Arch(vpt=case["vpt"], lora=case["lora"], adapter=case["adapter"])
    logits = net(TENSORS["images"], arch)
    torch.testing.assert_close(logits, TENSORS[f"case{case['id']}.logits"], rtol=0, atol=TOLERANCE)
    loss = F.cross_entropy(logits, TENSORS["labels"].long())
    assert loss.item() == pytest.approx(case["loss"], abs=TOLERANCE)
    loss.backward()
    theirs = original_gradients(case["id"])
    ours = {name: p.grad for name, p in net.trainable().items()}
    assert set(theirs) <= set(ours)
    for name, grad in ours.items():
        if grad is None:
            assert name not in theirs or not theirs[name].any(), name
        else:
            torch.testing.assert_close(grad, theirs[name], rtol=0, atol=TOLERANCE, msg=name)


def test_every_case_has_live_gradients_to_compare() -> None:
    for case in CASES:
        live = {name for name, g in original_gradients(case["id"]).items() if g.any()}
        modules = [m for m in ("vpt", "lora", "adapter") if any(case[m])]
        assert {"backbone.head.weight", "backbone.head.bias"} <= live
        assert all(any(f"prompts.{m}." in name for name in live) for m in modules)


def test_params_are_the_live_count() -> None:
    net = supernet()
    case = CASES[5]
    arch = Arch(vpt=case["vpt"], lora=case["lora"], adapter=case["adapter"])
    width = 48
    live = width * sum(case["vpt"]) + 4 * width * 1 + (2 * width + 1) * 1 + width
    assert net.params(arch) == live
