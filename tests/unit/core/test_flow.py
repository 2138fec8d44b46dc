"""The path from data to noise: ends, velocity, and the ways back."""

import pytest
import torch

from lens.core.flow import interpolate, per_sample, predict_x0, velocity_target
from lens.errors import ShapeError


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


CLEAN, NOISE = normal(2, 3, 5, 7, seed=0), normal(2, 3, 5, 7, seed=1)


def test_time_0_is_the_data_and_time_1_the_noise():
    assert torch.equal(interpolate(CLEAN, NOISE, torch.zeros(2)), CLEAN)
    assert torch.equal(interpolate(CLEAN, NOISE, torch.ones(2)), NOISE)


def test_each_sample_moves_by_its_own_time():
    moved = interpolate(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0.25, 0.75]))
    assert moved.tolist() == [[0.25] * 3, [0.75] * 3]


def test_the_true_velocity_leads_from_any_point_back_to_both_ends():
    t = torch.tensor([0.2, 0.9])
    here, velocity = interpolate(CLEAN, NOISE, t), velocity_target(CLEAN, NOISE)
    torch.testing.assert_close(predict_x0(here, velocity, t), CLEAN)
    torch.testing.assert_close(here + (1 - per_sample(t, like=here)) * velocity, NOISE)
    torch.testing.assert_close(here - per_sample(t, like=here) * velocity, CLEAN)


def test_the_velocity_is_the_slope_of_the_path():
    early, late = torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.75])
    slope = (interpolate(CLEAN, NOISE, late) - interpolate(CLEAN, NOISE, early)) / 0.25
    torch.testing.assert_close(slope, velocity_target(CLEAN, NOISE), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [torch.tensor(0.5), torch.tensor([0.5]), torch.full((2, 1), 0.5)])
def test_anything_but_one_time_per_sample_is_refused(t):
    with pytest.raises(ShapeError, match=r"it needs \(2,\): one time per sample"):
        interpolate(CLEAN, NOISE, t)


def test_ends_of_different_shapes_are_refused_rather_than_broadcast():
    with pytest.raises(ShapeError, match="clean and noise have shapes"):
        interpolate(CLEAN, NOISE[:, :1], torch.zeros(2))
    with pytest.raises(ShapeError, match="x_t and velocity have shapes"):
        predict_x0(CLEAN, NOISE[:, :1], torch.zeros(2))
