"""Guidance: where it leads, and the length it keeps."""

import pytest
import torch

from lens.core.guidance import cfg_norm_rescaled
from lens.errors import ShapeError


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


COND, UNCOND = normal(2, 3, 5, seed=0), normal(2, 3, 5, seed=1)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 5.0])
def test_every_token_keeps_the_length_of_its_conditional_vector(scale):
    lengths = cfg_norm_rescaled(COND, UNCOND, scale).norm(dim=-1)
    torch.testing.assert_close(lengths, COND.norm(dim=-1))


def test_a_worked_example():
    # 0 + 2 (c - 0) along c, brought back to c; and u + 5 (c - u) = (5, -4), of length sqrt 41, brought to 1
    cond, uncond = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(cfg_norm_rescaled(cond, uncond, 2.0)[0, 0], torch.tensor([3.0, 4.0]))
    led = torch.tensor([5.0, -4.0]) / 41**0.5
    torch.testing.assert_close(cfg_norm_rescaled(cond, uncond, 5.0)[0, 1], led)


def test_at_scale_1_the_conditional_velocity_comes_back_as_it_was():
    assert torch.equal(cfg_norm_rescaled(COND, UNCOND, 1.0), COND)


def test_a_vector_of_length_zero_gives_zero_and_no_nan():
    zero = torch.zeros(1, 2, 3)
    assert torch.equal(cfg_norm_rescaled(zero, zero, 5.0), zero)
    assert torch.equal(cfg_norm_rescaled(zero, torch.ones(1, 2, 3), 5.0), zero)
    # u + 2 (c - u) = 0 when u = 2 c: nothing to rescale
    assert torch.equal(cfg_norm_rescaled(torch.ones(1, 2, 3), 2 * torch.ones(1, 2, 3), 2.0), zero)


def test_the_dtype_is_kept_and_the_sums_are_done_in_float32():
    half = cfg_norm_rescaled(COND.bfloat16(), UNCOND.bfloat16(), 5.0)
    exact = cfg_norm_rescaled(COND.bfloat16().float(), UNCOND.bfloat16().float(), 5.0)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, exact.bfloat16())


def test_different_shapes_are_refused_rather_than_broadcast():
    with pytest.raises(ShapeError, match="cond and uncond have shapes"):
        cfg_norm_rescaled(COND, UNCOND[:1], 5.0)
