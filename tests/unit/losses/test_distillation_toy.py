"""Distillation of points in a plane: what each term does alone, and both together.

The teacher is a mixture of four Gaussians, one a prompt, with exact predictions; without text it is the whole
mixture. Each is long in one direction, the student's are round: it cannot be what the teacher is, as few
steps cannot. What the student draws is Gaussian, so its fake model is exact too.
Letters: B points, K prompts.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lens.core.flow import interpolate, per_sample
from lens.losses.distillation import (
    distribution_matching_gradient,
    guidance_gradient,
    renoising_times,
    surrogate_loss,
)

MEANS = torch.tensor([[0.6, 0.6], [-0.6, 0.6], [-0.6, -0.6], [0.6, -0.6]])      # (K, 2)
SPREADS = torch.tensor([0.5, 0.1])
"""Standard deviations of each prompt's Gaussian along the two axes."""
STEPS, BATCH, LR = 500, 256, 0.02


class Student(NamedTuple):
    """What a one-step student draws: around a mean for each prompt, alike in all directions."""

    means: Tensor
    """(K, 2)."""
    spread: Tensor
    """One standard deviation for all."""

    @property
    def variance(self) -> float:
        """Of all images over both axes."""
        return float((self.means - self.means.mean(0)).square().mean() + self.spread.square())


def clean_prediction(x_t: Tensor, t: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return the mean of x_0 given x_t where x_0 is Gaussian. Shapes: x_t (B, 2, 1, 1), mean (B, 2, 1, 1)."""
    level = per_sample(t, like=x_t)
    variance = spread.reshape(1, -1, 1, 1).square()
    gain = (1 - level) * variance / ((1 - level).square() * variance + level.square())
    return mean + gain * (x_t - (1 - level) * mean)


def unconditional_prediction(x_t: Tensor, t: Tensor) -> Tensor:
    """Return the mean of x_0 given x_t of the whole mixture."""
    level = per_sample(t, like=x_t)
    variance = (1 - level).square() * SPREADS.reshape(1, 2, 1, 1).square() + level.square()
    means = [mean.reshape(1, 2, 1, 1).expand_as(x_t) for mean in MEANS]
    densities = [-0.5 * ((x_t - (1 - level) * mean).square() / variance).flatten(1).sum(1) for mean in means]
    shares = torch.stack(densities).softmax(0)                                                  # (K, B)
    parts = [clean_prediction(x_t, t, mean, SPREADS) for mean in means]
    return sum(
        per_sample(share, like=x_t) * part for share, part in zip(shares, parts, strict=True)
    )


def distilled(matching: float, guidance: float, scale: float = 2.0, steps: int = STEPS) -> Student:
    """Train a student from the teacher's means and widest spread with these weights of the two terms."""
    draw = torch.Generator().manual_seed(0)
    means, spread = MEANS.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True)
    optimizer = torch.optim.Adam([means, spread], LR, betas=(0.0, 0.9))
    for _ in range(steps):
        prompts = torch.randint(len(MEANS), (BATCH,), generator=draw)
        own = means[prompts].reshape(BATCH, 2, 1, 1)
        x_0 = own + spread * torch.randn(BATCH, 2, 1, 1, generator=draw)
        wanted = MEANS[prompts].reshape(BATCH, 2, 1, 1)
        total = torch.zeros_like(x_0)
        with torch.no_grad():
            t, x_t = noised(x_0, draw)
            teacher = clean_prediction(x_t, t, wanted, SPREADS)
            fake = clean_prediction(x_t, t, own, spread.expand(2))
            total += matching * distribution_matching_gradient(x_0, teacher, fake)
            t, x_t = noised(x_0, draw)
            cond = clean_prediction(x_t, t, wanted, SPREADS)
            total += guidance * guidance_gradient(cond, unconditional_prediction(x_t, t), scale)
        optimizer.zero_grad()
        surrogate_loss(x_0, total).backward()
        optimizer.step()
    return Student(means.detach(), spread.detach())


def noised(x_0: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    t = renoising_times(torch.rand(BATCH, generator=draw))
    return t, interpolate(x_0, torch.randn(x_0.shape, generator=draw), t)


TEACHER_SPREAD = float(SPREADS.square().mean().sqrt())
TEACHER = Student(MEANS, torch.tensor(TEACHER_SPREAD))


@pytest.fixture(scope="module")
def matched() -> Student:
    return distilled(matching=1, guidance=0)


def test_distribution_matching_alone_keeps_the_mean_and_loses_variance(matched):
    assert float((matched.means - MEANS).abs().max()) < 0.06
    assert 0.5 * TEACHER_SPREAD < float(matched.spread.abs()) < 0.9 * TEACHER_SPREAD
    assert matched.variance < TEACHER.variance


def test_guidance_alone_increases_the_variance_without_bound():
    half, whole = distilled(matching=0, guidance=1, steps=STEPS // 2), distilled(matching=0, guidance=1)
    assert half.variance > 20 * TEACHER.variance
    assert whole.variance > 2.5 * half.variance


def test_the_effect_of_guidance_depends_on_the_sum_of_learning_rates():
    """Steps of one length, as Adam's are: as far as they go, and no weight makes them longer."""
    whole, light = (distilled(matching=0, guidance=weight, steps=100) for weight in (1, 0.2))
    away = (whole.means - MEANS).abs()
    assert float(away.min()) > 0.8 * 100 * LR and float(away.max()) < 1.2 * 100 * LR
    torch.testing.assert_close(light.means, whole.means, rtol=1e-3, atol=1e-3)


def test_both_terms_together_keep_mean_and_variance(matched):
    both, longer = distilled(matching=1, guidance=1), distilled(matching=1, guidance=1, steps=2 * STEPS)
    for student in (both, longer):
        outward = student.means.abs() - MEANS.abs()
        assert float(outward.min()) > 0 and float(outward.max()) < 0.15, "further out, and no further"
        assert matched.variance < student.variance < 1.5 * TEACHER.variance
    assert float((longer.means - both.means).abs().max()) < 0.12
