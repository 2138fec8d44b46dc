"""The terms of distillation against values worked out by hand."""

import math

import pytest
import torch

from lens.core.flow import interpolate, predict_x0
from lens.core.schedule import empirical_mu, sampling_sigmas
from lens.losses.distillation import (
    approx_r1_penalty,
    discriminator_loss,
    distribution_matching_gradient,
    generator_loss,
    gradient_cosine,
    guidance_gradient,
    inject_gradient,
    next_student_input,
    perturb,
    renoising_times,
    student_times,
    surrogate_loss,
    teacher_times,
    trajectory_loss,
    trajectory_target,
)
from lens.sampling.solvers import SOLVERS


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shaped(*rows: list[float]) -> torch.Tensor:
    """Samples of 2 channels, 1 x 2 cells."""
    return torch.tensor(rows).reshape(len(rows), 2, 1, 2)


def test_distribution_matching_is_fake_minus_teacher_over_each_samples_distance_to_the_teacher():
    x_0 = shaped([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0])
    teacher = shaped([0.0, 2.0, 5.0, 5.0], [4.0, -4.0, 4.0, -4.0])     # distances 1 + 0 + 2 + 1, 16, over 4
    fake = shaped([1.0, 2.0, 4.0, 5.0], [2.0, 2.0, 2.0, 2.0])
    wanted = shaped([1.0, 0.0, -1.0, 0.0], [-0.5, 1.5, -0.5, 1.5])
    torch.testing.assert_close(distribution_matching_gradient(x_0, teacher, fake), wanted)


def test_the_distribution_matching_gradient_is_zero_where_the_fake_model_agrees_with_the_teacher():
    x_0, teacher = normal(2, 3, 5, 7, seed=0), normal(2, 3, 5, 7, seed=1)
    assert not distribution_matching_gradient(x_0, teacher, teacher.clone()).any()


def test_a_student_that_meets_the_teacher_gets_zeros_and_no_nan():
    x_0 = normal(2, 3, 5, 7, seed=0)
    assert not distribution_matching_gradient(x_0, x_0, x_0).any()
    broken = x_0.clone()
    broken[0, 0, 0, 0] = math.nan
    gradient = distribution_matching_gradient(x_0, normal(2, 3, 5, 7, seed=1), broken)
    assert gradient.isfinite().all() and gradient[0, 0, 0, 0] == 0 and gradient[1].all()


def test_a_step_against_the_guidance_gradient_moves_in_the_direction_of_guidance():
    cond, uncond = shaped([1.0, 0.0, 2.0, -1.0]), shaped([0.0, 0.0, 3.0, 1.0])
    gradient = guidance_gradient(cond, uncond, 5.0)
    torch.testing.assert_close(gradient, shaped([-4.0, 0.0, 4.0, 8.0]))
    torch.testing.assert_close(cond - gradient, uncond + 5 * (cond - uncond))


def test_at_scale_one_guidance_adds_nothing():
    assert not guidance_gradient(normal(2, 3, 5, 7, seed=0), normal(2, 3, 5, 7, seed=1), 1.0).any()


def test_the_surrogate_loss_has_the_given_gradient_and_half_its_mean_square_as_value():
    x_0, gradient = normal(2, 3, 5, 7, seed=0).requires_grad_(), normal(2, 3, 5, 7, seed=1)
    loss = surrogate_loss(x_0, gradient)
    loss.backward()
    torch.testing.assert_close(x_0.grad, gradient / gradient.numel())
    torch.testing.assert_close(loss.detach(), 0.5 * gradient.square().mean())


def test_the_logistic_losses_of_known_logits():
    real, student = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([3.0, 0.0])
    soft = lambda x: math.log1p(math.exp(x))  # noqa: E731
    wanted = (soft(0) + soft(-1) + soft(2)) / 3 + (soft(3) + soft(0)) / 2
    assert float(discriminator_loss(real, student)) == pytest.approx(wanted, rel=1e-6)
    assert float(generator_loss(student)) == pytest.approx((soft(-3) + soft(0)) / 2, rel=1e-6)


def test_the_approximate_r1_penalty_is_half_gamma_times_the_mean_squared_change():
    found = approx_r1_penalty(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]), gamma=3.0)
    assert float(found) == pytest.approx(0.5 * 3 * (1 + 9) / 2)
    torch.testing.assert_close(perturb(torch.ones(1, 2, 3, 5), torch.full((1, 2, 3, 5), 2.0)).unique(),
                               torch.tensor([1.2]))  # fmt: skip


def test_a_student_is_trained_at_the_samplers_own_sigmas():
    for num_tokens, num_steps in ((64, 4), (4096, 4), (512, 2)):
        times = student_times(num_tokens, num_steps)
        assert torch.equal(times, sampling_sigmas(num_tokens, num_steps)[:num_steps])
        assert times[0] == 1 and times[-1] > 0


def test_a_teachers_levels_within_the_students_steps_are_those_of_one_finer_schedule():
    mu = empirical_mu(63, 3)
    found = [teacher_times(63, 3, step, 4) for step in range(3)]
    for step, levels in enumerate(found):
        even = [1 - (4 * step + place) / 12 for place in range(5)]
        wanted = [math.exp(mu) / (math.exp(mu) + 1 / u - 1) if u > 1e-9 else 0.0 for u in even]
        assert levels.tolist() == pytest.approx(wanted, abs=1e-6)
    assert torch.equal(torch.stack([levels[0] for levels in found]), student_times(63, 3))


def test_a_step_toward_the_trajectory_target_ends_at_the_teachers_point():
    draw = torch.Generator().manual_seed(0)
    x_t, arrived = torch.randn(2, 2, 3, 5, 7, generator=draw)
    t, t_next = 0.8, 0.3
    aim = trajectory_target(x_t, arrived, t, t_next)
    velocity = (x_t - aim) / t
    torch.testing.assert_close(x_t + (t_next - t) * velocity, arrived)
    torch.testing.assert_close(trajectory_target(x_t, arrived, t, 0.0), arrived)
    off = trajectory_loss(aim + 0.4, aim, t)
    assert float(off) == pytest.approx((0.4 / 0.8) ** 2, rel=1e-4)


def test_times_of_guidance_are_never_above_the_students_own_and_all_stay_in_their_range():
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    free = renoising_times(u)
    assert 0.02 <= float(free.min()) < 0.03 and 0.97 < float(free.max()) <= 0.98
    for student_time in (1.0, 0.98, 0.7, 0.3):
        held = renoising_times(u, student_time)
        assert float(held.max()) <= student_time and float(held.min()) >= 0.02
    assert float(renoising_times(u, 0.01).max()) <= 0.01
    each = torch.linspace(0.05, 1.0, 1000)
    assert (renoising_times(u, each) <= each).all()
    assert float(renoising_times(torch.tensor([0.5]), 0.62)) == pytest.approx(0.32)


def test_a_loss_can_be_given_its_value_and_its_gradient():
    x_0, gradient = normal(2, 3, 5, 7, seed=0).requires_grad_(), normal(2, 3, 5, 7, seed=1)
    loss = inject_gradient(x_0, torch.tensor(0.7), gradient)
    (3 * loss).backward()
    assert float(loss.detach()) == pytest.approx(0.7)
    torch.testing.assert_close(x_0.grad, 3 * gradient)


def test_a_simulated_step_without_noise_is_one_of_the_samplers():
    x, velocity = normal(2, 3, 5, 7, seed=0), normal(2, 3, 5, 7, seed=1)
    t, t_next = torch.tensor([0.8, 0.8]), torch.tensor([0.3, 0.3])
    stepped = next_student_input(predict_x0(x, velocity, t), x, t, t_next, None)
    wanted = SOLVERS["euler"](lambda *_: velocity, torch.tensor([0.8, 0.3]), x)
    torch.testing.assert_close(stepped, wanted)


def test_a_simulated_step_with_noise_renoises_the_students_image():
    x_0, x_t, noise = (normal(2, 3, 5, 7, seed=seed) for seed in range(3))
    t, t_next = torch.tensor([1.0, 0.8]), torch.tensor([0.3, 0.2])
    torch.testing.assert_close(
        next_student_input(x_0, x_t, t, t_next, noise), interpolate(x_0, noise, t_next)
    )


def test_the_cosine_is_a_mean_over_samples_and_zero_without_a_direction():
    a = shaped([1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0])
    b = shaped([3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0])
    assert float(gradient_cosine(a, b)) == pytest.approx(0.5)
    assert float(gradient_cosine(a, torch.zeros_like(a))) == 0
