"""The contract of every installed prompt module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from noahnas.modules import PromptModule
from noahnas.registry import installed, resolve
from noahnas.space import Shape

WIDTH, MOST = 12, 6
NAMES = list(installed("noahnas.modules"))


def make(name: str, dim: int = MOST) -> Any:
    torch.manual_seed(0)
    module = resolve("noahnas.modules", name, "module")(WIDTH, dim, 0.0)
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    return module


def tokens() -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_named_like_its_entry_point(name: str) -> None:
    module = make(name)
    assert isinstance(module, PromptModule)
    assert module.name == name
    assert module.site in ("qkv", "mlp", "tokens")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [1, 3, MOST])
def test_params_is_the_number_of_weights_that_a_forward_uses(name: str, dim: int) -> None:
    module = make(name)
    module(tokens(), dim).square().sum().backward()
    used = sum(int((p.grad != 0).sum()) for p in module.parameters() if p.grad is not None)
    assert module.params(Shape(width=WIDTH), dim) == used


@pytest.mark.parametrize("name", NAMES)
def test_params_of_the_absent_module_is_zero_and_a_negative_dim_an_error(name: str) -> None:
    assert make(name).params(Shape(width=WIDTH), 0) == 0
    with pytest.raises(ValueError, match="at least 0"):
        make(name).params(Shape(width=WIDTH), -1)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_dim_is_a_slice_of_the_large_one(name: str) -> None:
    """Weights beyond the dim do not matter, and a module cut down to the dim gives the same."""
    large, small = make(name), make(name, 2)
    for target, source in zip(small.parameters(), large.parameters(), strict=True):
        window = tuple(slice(size) for size in target.shape)
        target.data = source.data[window].clone()
    torch.testing.assert_close(small(tokens(), 2), large(tokens(), 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_output_has_the_shape_that_its_site_asks_for(name: str) -> None:
    module = make(name)
    shape = {"qkv": (2, 5, 3 * WIDTH), "mlp": (2, 5, WIDTH), "tokens": (2, 3, WIDTH)}
    assert tuple(module(tokens(), 3).shape) == shape[module.site]


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_alone(name: str) -> None:
    torch.manual_seed(0)
    module = resolve("noahnas.modules", name, "module")(WIDTH, MOST, 0.5)
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    quiet = module.eval()(tokens(), MOST)
    torch.testing.assert_close(quiet, module(tokens(), MOST))
    assert not torch.equal(quiet, module.train()(tokens(), MOST))


@pytest.mark.parametrize("name", ["adapter", "lora"])
def test_a_fresh_module_adds_nothing(name: str) -> None:
    fresh = resolve("noahnas.modules", name, "module")(WIDTH, MOST, 0.0)
    assert not fresh(tokens(), MOST).any()


def test_params_follow_the_papers_formulas_at_vit_b() -> None:
    costs = {name: resolve("noahnas.modules", name, "module").params(Shape(), 10) for name in NAMES}
    assert costs["adapter"] == (2 * 768 + 1) * 10 + 768
    assert costs["lora"] == 4 * 768 * 10
    assert costs["vpt"] == 768 * 10
