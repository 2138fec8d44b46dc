"""Products in float32 with weights of 16 bits: their values, and when they are made."""

import pytest
import torch

from lens.core import products
from lens.core.products import cpu_compute_dtype, is_cpu_inference, linear


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("has_bias", [False, True])
@torch.no_grad()
def test_a_weight_of_16_bits_is_multiplied_in_float32_some_rows_at_a_time(monkeypatch, dtype, has_bias):
    monkeypatch.setattr(products, "WIDENED_AT_ONCE", 4 * 7 + 3)  # 4 of 11 rows at a time
    x, weight = normal(2, 3, 7, seed=1), normal(11, 7, seed=2).to(dtype)
    bias = normal(11, seed=3).to(dtype) if has_bias else None
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    ours = linear(x, weight, bias)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_no_rows_have_no_products():
    assert linear(torch.zeros(2, 0, 7), normal(11, 7).bfloat16()).shape == (2, 0, 11)


def test_gradients_flow_where_dtypes_agree_and_other_dtypes_are_refused_as_ever():
    x, weight = normal(3, 7, seed=1), normal(11, 7, seed=2).requires_grad_()
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(11, 7))
    with pytest.raises(RuntimeError, match="dtype"):
        linear(x, weight.bfloat16())


def test_inference_on_a_cpu_is_without_gradients_autocast_and_the_compiler():
    x = torch.zeros(1)
    assert not is_cpu_inference(x)
    with torch.no_grad():
        assert is_cpu_inference(x)
        assert not is_cpu_inference(torch.zeros(1, device="meta"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not is_cpu_inference(x)
    with torch.inference_mode():
        assert is_cpu_inference(x)


@pytest.mark.parametrize("prefers_float32", [False, True])
def test_only_inference_in_16_bits_computes_in_the_dtype_that_is_faster(monkeypatch, prefers_float32):
    monkeypatch.setattr(products, "_prefers_float32", lambda dtype: prefers_float32)
    half, single = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)
    assert cpu_compute_dtype(half) == torch.bfloat16
    with torch.no_grad():
        assert cpu_compute_dtype(half) == (torch.float32 if prefers_float32 else torch.bfloat16)
        assert cpu_compute_dtype(single) == torch.float32
        assert cpu_compute_dtype(half.to("meta")) == torch.bfloat16


def test_timing_products_keeps_the_threads_and_draws_no_random_numbers():
    num_threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert products._prefers_float32.__wrapped__(torch.bfloat16) in (False, True)
    assert torch.get_num_threads() == num_threads
    assert torch.equal(torch.get_rng_state(), state)
