"""Sampling sigmas and training times: known values, ends and order."""

import pytest
import torch

from lens.core.schedule import empirical_mu, logit_normal_times, sampling_sigmas, shift_times, training_mu
from lens.errors import SettingError

TOKENS_AT_1024, TOKENS_AT_1440 = 64 * 64, 90 * 90


@pytest.mark.parametrize(("steps", "mu"), [(4, 2.291), (8, 2.268), (20, 2.198), (50, 2.023)])
def test_mu_at_1024_px_has_the_published_values(steps, mu):
    assert empirical_mu(TOKENS_AT_1024, steps) == pytest.approx(mu, abs=5e-4)


@pytest.mark.parametrize("steps", [1, 4, 20, 50, 200])
def test_mu_at_1440_px_is_the_same_at_any_number_of_steps(steps):
    assert empirical_mu(TOKENS_AT_1440, steps) == pytest.approx(1.828, abs=5e-4)


def test_the_second_rule_begins_above_4300_tokens():
    assert empirical_mu(4300, 20) != empirical_mu(4300, 50)
    assert empirical_mu(4301, 20) == empirical_mu(4301, 50)


@pytest.mark.parametrize(("tokens", "steps"), [(64, 1), (64, 20), (4096, 4), (8100, 50)])
def test_sigmas_fall_from_1_to_0(tokens, steps):
    sigmas = sampling_sigmas(tokens, steps)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float32
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_sigmas_of_turbo_at_1024_px_have_the_values_worked_out_by_hand():
    # mu = 2.25624571 - 6 (1.14999658 - 2.25624571) / 190 = 2.2911799, e^mu = 9.88660;
    # s' = 9.88660 / (9.88660 + 1/s - 1) at s = 1, 3/4, 1/2, 1/4
    expected = torch.tensor([1.0, 0.967384, 0.908144, 0.767200, 0.0])
    torch.testing.assert_close(sampling_sigmas(TOKENS_AT_1024, 4), expected, atol=1e-6, rtol=0)


def test_no_steps_are_refused():
    with pytest.raises(SettingError, match="num_inference_steps is 0"):
        sampling_sigmas(64, 0)


def test_a_shift_of_0_leaves_times_alone_and_both_ends_stay():
    t = torch.linspace(0, 1, 7)
    torch.testing.assert_close(shift_times(t, 0.0), t)
    assert shift_times(t, 2.0)[[0, -1]].tolist() == [0, 1]


def test_training_times_are_the_sigmoid_of_a_shifted_normal():
    times = logit_normal_times(torch.tensor([-1.0, 0.0, 1.0]), mu=1.0)
    torch.testing.assert_close(times, torch.tensor([0.5, 0.7310586, 0.8807970]))


@pytest.mark.parametrize(("tokens", "mu"), [(256, 1.0), (4096, 1.3), (1024, 1.06), (64, 0.985)])
def test_the_training_mean_is_a_line_in_the_token_count(tokens, mu):
    assert training_mu(tokens) == pytest.approx(mu, abs=1e-9)


def test_the_training_line_can_be_given():
    assert training_mu(150, mu=(0.0, 1.0), tokens=(100, 200)) == 0.5
