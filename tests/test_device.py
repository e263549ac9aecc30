"""Where forwards run, and in which precision."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from noahnas.device import autocast, default_precision

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_that_has_bf16_uses_it() -> None:
    expected = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    assert default_precision(torch.device("cuda")) == expected
