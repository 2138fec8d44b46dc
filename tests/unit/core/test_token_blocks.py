"""Norms and rotary embedding in blocks of tokens: equal to those of whole tensors."""

import pytest
import torch
import torch.nn.functional as F

from lens.core import token_blocks
from lens.core.token_blocks import modulated_rms_norm, rotated_rms_norm


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 3 tokens of a batch of 2 times 8 channels, and so of another number on several threads."""
    monkeypatch.setattr(token_blocks, "VALUES_PER_THREAD", 3 * 2 * 8)


@pytest.mark.parametrize("num_modulated", [1, 11])
def test_the_modulated_norm_in_float32_is_that_of_pytorch_to_the_bit(small_blocks, num_modulated):
    x, (shift, scale) = normal(2, 11, 8), (normal(2, num_modulated, 8, seed=n) for n in (1, 2))
    expected = torch.addcmul(shift, F.rms_norm(x, (8,), None, 1e-6), scale)
    assert torch.equal(modulated_rms_norm(x, shift, scale, 1e-6), expected)


@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_the_modulated_norm_of_16_bits_is_rounded_once(small_blocks, dtype, epsilon):
    x, shift, scale = (normal(2, 11, 8, seed=n).to(dtype) for n in range(3))
    wide = x.double()
    exact = wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * scale.double() + shift.double()
    ours = modulated_rms_norm(x, shift, scale, 1e-6)
    assert ours.dtype == dtype
    assert ((ours.double() - exact).abs() <= epsilon * exact.abs() + 1e-5).all()


def expected_rotation(x: torch.Tensor, weight: torch.Tensor, turns: torch.Tensor, eps: float) -> torch.Tensor:
    normed = F.rms_norm(x, (8,), weight, eps)
    return torch.view_as_real(torch.view_as_complex(normed.unflatten(-1, (4, 2))) * turns[:, None]).flatten(3)


def test_the_rotated_norm_is_written_into_strided_memory_to_the_bit(small_blocks):
    heads, weight = normal(2, 11, 3, 5, 8), normal(8, seed=1)
    turns = torch.polar(torch.ones(11, 4), normal(11, 4, seed=2))
    joint = torch.zeros(2, 5, 13, 8)
    x, out = heads[:, :, 1], joint.transpose(1, 2)[:, 2:]
    rotated_rms_norm(x, weight, torch.view_as_real(turns), 1e-5, out)
    assert torch.equal(out, expected_rotation(x, weight, turns, 1e-5))
    assert not joint[:, :, :2].any()


def test_the_rotated_norm_of_bfloat16_is_rounded_once(small_blocks):
    x, weight = normal(2, 11, 5, 8).bfloat16(), normal(8, seed=1).bfloat16()
    turns = torch.polar(torch.ones(11, 4), normal(11, 4, seed=2))
    out = torch.empty_like(x)
    rotated_rms_norm(x, weight, torch.view_as_real(turns), 1e-6, out)
    exact = expected_rotation(x.float(), weight.float(), turns, 1e-6)
    torch.testing.assert_close(out, exact.bfloat16(), rtol=2**-7, atol=0)


def test_no_tokens_are_no_error():
    empty = torch.empty(2, 0, 8)
    assert modulated_rms_norm(empty, normal(2, 1, 8), normal(2, 1, 8), 1e-6).shape == (2, 0, 8)
