"""DiffusionNFT by values worked by hand, and what has to hold for any values."""

import copy

import pytest
import torch
from torch import nn

from lens.core.flow import interpolate, velocity_target
from lens.losses.diffusion_nft import (
    advantages,
    diversity,
    has_equal_rewards,
    nft_terms,
    old_policy_decay,
    optimality,
)

SHAPE = (3, 2, 5, 7)


def normal(seed: int, shape=SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def policy_gradient(new: torch.Tensor, old: torch.Tensor, optimal: torch.Tensor, beta: float) -> torch.Tensor:
    clean, t = normal(7), torch.tensor([0.2, 0.5, 0.9])
    new = new.clone().requires_grad_()
    noisy = interpolate(clean, normal(8), t)
    terms = nft_terms(new, old, None, noisy, clean, t=t, optimal=optimal, nft_beta=beta)
    (gradient,) = torch.autograd.grad(terms.policy.sum(), new)
    return gradient


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_at_optimality_one_half_the_gradient_is_zero_before_any_update(beta):
    velocity = normal(1)
    gradient = policy_gradient(velocity, velocity, torch.full((3,), 0.5), beta)
    assert gradient.abs().max() < 1e-6


def test_good_and_bad_images_have_opposite_gradients_of_equal_size():
    velocity = normal(1)
    good = policy_gradient(velocity, velocity, torch.full((3,), 0.8), 1.0)
    bad = policy_gradient(velocity, velocity, torch.full((3,), 0.2), 1.0)
    assert good.abs().max() > 1e-3
    torch.testing.assert_close(good, -bad)


def test_a_gradient_step_for_good_images_brings_the_prediction_closer_to_them():
    clean, noise = normal(7), normal(8)
    old = normal(1)
    new = old - 0.01 * policy_gradient(old, old, torch.ones(3), 1.0)
    wanted = noise - clean
    assert ((new - wanted).flatten(1).norm(dim=1) < (old - wanted).flatten(1).norm(dim=1)).all()


def test_the_loss_equals_the_formula_worked_by_hand():
    # One value: x_t = 3 at t = 1/2, so x_0 = 3 - v / 2. Old v = 2, new v = 4: the two policies are 4 and 0,
    # their x_0 are 1 and 3, and from the clean 0 they are off by 1 and 3; squared over size: 1 and 3.
    one = torch.ones(1, 1, 1, 1)
    terms = nft_terms(
        4 * one, 2 * one, 5 * one, 3 * one, 0 * one, t=torch.tensor([0.5]), optimal=torch.tensor([0.75]),
        nft_beta=1.0,
    )  # fmt: skip
    torch.testing.assert_close(terms.policy, torch.tensor([5 * (0.75 * 1 + 0.25 * 3)]))
    torch.testing.assert_close(terms.kl, torch.tensor([1.0]))
    torch.testing.assert_close(terms.drift, torch.tensor([4.0]))


def test_the_sampling_policy_and_the_reference_are_not_trained():
    clean, t = normal(7), torch.tensor([0.2, 0.5, 0.9])
    new, old, reference = (normal(seed).requires_grad_() for seed in (1, 2, 3))
    terms = nft_terms(
        new,
        old,
        reference,
        interpolate(clean, normal(8), t),
        clean,
        t=t,
        optimal=torch.rand(3),
        nft_beta=0.5,
    )
    (terms.policy + terms.kl).sum().backward()
    assert new.grad is not None and old.grad is None and reference.grad is None


def test_advantages_are_distances_to_the_group_over_the_spread_of_all():
    raw = torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])
    spread = raw.std(correction=0)
    wanted = torch.tensor([[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]) / (spread + 1e-4)
    torch.testing.assert_close(advantages(raw), wanted)
    assert (advantages(raw, clip=0.7).abs() <= 0.7).all()
    assert has_equal_rewards(raw).tolist() == [False, True]


def test_images_without_a_reward_have_no_advantage_and_do_not_change_their_group():
    nan = torch.nan
    raw = torch.tensor([[0.0, nan, 1.0], [nan, nan, nan], [0.3, 0.3, nan]])
    found = advantages(raw)
    spread = torch.tensor([0.0, 1.0, 0.3, 0.3]).std(correction=0)
    half = 0.5 / (spread + 1e-4)
    torch.testing.assert_close(found[0], torch.tensor([-half, 0.0, half]))
    assert found[1:].abs().max() == 0
    assert has_equal_rewards(raw).tolist() == [False, True, True]


def test_advantages_are_spread_over_zero_to_one():
    found = optimality(torch.tensor([-9.0, -5.0, 0.0, 2.0, 5.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.5, 0.7, 1.0]))
    torch.testing.assert_close(optimality(torch.tensor([-1.0, 0.5]), width=2.0), torch.tensor([0.0, 0.75]))


def test_the_sampling_policy_follows_by_the_published_schedules():
    assert [old_policy_decay(count) for count in (0, 1, 100, 500, 9000)] == [0.0, 0.001, 0.1, 0.5, 0.5]
    assert old_policy_decay(70, "zero") == 0.0
    assert [old_policy_decay(count, "late") for count in (10, 75)] == [0.0, 0.0]
    assert old_policy_decay(77, "late") == pytest.approx(0.015)
    assert old_policy_decay(5000, "late") == 0.999


def test_diversity_is_the_mean_distance_of_two_images():
    latents = torch.zeros(3, 1, 2, 2)
    latents[1], latents[2] = 1.0, 3.0
    # Distances of all pairs, over the root of four values: 1, 3 and 2.
    torch.testing.assert_close(diversity(latents), torch.tensor(2.0))


def test_on_a_trained_model_of_points_the_reward_of_samples_rises_and_samples_stay_diverse():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))

    def velocity(model: nn.Module, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return model(torch.cat([x, t[:, None]], dim=1))

    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(300):  # points around (0, 0), spread 1/2
        clean, noise, t = 0.5 * torch.randn(256, 2), torch.randn(256, 2), torch.rand(256)
        error = velocity(net, interpolate(clean, noise, t), t) - velocity_target(clean, noise)
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    old = copy.deepcopy(net).requires_grad_(False)

    def drawn(count: int) -> torch.Tensor:
        x = torch.randn(count, 2)
        for step in range(10):
            x = x - 0.1 * velocity(old, x, torch.full((count,), 1 - step / 10))
        return x

    def reward(points: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(2 * points[:, 0])

    before = drawn(1000)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for update in range(40):
        clean, t = drawn(128), torch.rand(128) * 0.9 + 0.1
        optimal = optimality(advantages(reward(clean)[None])[0], width=2.0)
        noisy = interpolate(clean, torch.randn(128, 2), t)
        new, sampling = velocity(net, noisy, t), velocity(old, noisy, t)
        terms = nft_terms(
            new, sampling, None, noisy, clean, t=t, optimal=optimal, nft_beta=1.0
        )
        optimizer.zero_grad()
        terms.policy.mean().backward()
        optimizer.step()
        decay = old_policy_decay(update + 1)
        for weight, other in zip(old.parameters(), net.parameters(), strict=True):
            weight.lerp_(other.detach(), 1 - decay)
    after = drawn(1000)
    assert reward(after).mean() > reward(before).mean() + 0.1
    assert after[:, 0].mean() > before[:, 0].mean() + 0.2
    assert abs(after[:, 1].mean() - before[:, 1].mean()) < 0.15, "what is not rewarded stays"
    assert after[:, 1].std() > 0.5 * before[:, 1].std()
