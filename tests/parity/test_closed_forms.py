"""The maths derived again in plain NumPy, in float64, from sections 3, 5 and 14 of the specification."""

import math

import numpy as np
import pytest
import torch

from lens.core.guidance import cfg_norm_rescaled
from lens.core.latents import pack_latents, patchify
from lens.core.rope import image_positions, rope_angles, text_positions
from lens.core.schedule import empirical_mu, sampling_sigmas
from lens.models.attention import apply_rotary
from lens.models.layers import timestep_embedding

AXES = (8, 28, 28)


def positions_by_loop(height: int, width: int, num_text: int) -> np.ndarray:
    rows = []
    for i in range(height):
        for j in range(width):
            rows.append([0, i - (height - height // 2), j - (width - width // 2)])
    for k in range(num_text):
        rows.append([max(height // 2, width // 2) + k] * 3)
    return np.array(rows, dtype=np.float64)


def angles_by_loop(positions: np.ndarray) -> np.ndarray:
    angles = np.zeros((len(positions), sum(AXES) // 2))
    for token, place in enumerate(positions):
        pair = 0
        for axis, dim in enumerate(AXES):
            for index in range(dim // 2):
                angles[token, pair] = place[axis] / 10000 ** (2 * index / dim)
                pair += 1
    return angles


@pytest.mark.parametrize(("height", "width", "num_text"), [(3, 5, 7), (92, 46, 512), (6, 11, 0)])
def test_positions_and_angles(height, width, num_text):
    ours = torch.cat([image_positions(height, width), text_positions(num_text, height, width)])
    theirs = positions_by_loop(height, width, num_text)
    assert np.array_equal(ours.double().numpy(), theirs)
    # float32 angles of up to 557 radians: a rounding of 2^-23 of the angle, and as much of the frequency
    angles = rope_angles(ours, AXES).double().numpy()
    np.testing.assert_allclose(angles, angles_by_loop(theirs), rtol=5e-7, atol=1e-7)


def test_rotation_is_the_complex_product_of_adjacent_pairs():
    rng = np.random.default_rng(0)
    x, angles = rng.normal(size=(2, 5, 3, 64)), rng.normal(size=(5, 32))
    expected = np.zeros_like(x)
    for token in range(5):
        for pair in range(32):
            number = x[:, token, :, 2 * pair] + 1j * x[:, token, :, 2 * pair + 1]
            number = number * np.exp(1j * angles[token, pair])
            expected[:, token, :, 2 * pair], expected[:, token, :, 2 * pair + 1] = number.real, number.imag
    turns = torch.polar(torch.ones(5, 32), torch.from_numpy(angles).float())
    ours = apply_rotary(torch.from_numpy(x).float(), torch.view_as_real(turns))
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)


def test_scores_depend_on_the_distance_between_positions_alone():
    q, k = torch.randn(2, 1, 1, 1, 64, generator=torch.Generator().manual_seed(0)).unbind(0)

    def score(there, here):
        there, here = (torch.exp(1j * rope_angles(torch.tensor([place]), AXES)) for place in (there, here))
        there, here = torch.view_as_real(there), torch.view_as_real(here)
        return (apply_rotary(q, there) * apply_rotary(k, here)).sum().item()

    near, moved = score([4, 9, -3], [1, 2, 5]), score([14, 29, 17], [11, 22, 25])
    assert near == pytest.approx(moved, abs=1e-4)
    assert near != pytest.approx(score([4, 9, -3], [1, 3, 5]), abs=1e-2)


def test_the_time_sinusoid_has_cosines_first_at_1000_times_the_level():
    t = np.array([0.0, 0.123, 1.0])
    frequencies = np.exp(-math.log(10000) * np.arange(128) / 128)
    angles = 1000 * t[:, None] * frequencies
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    # float32 angles reach 1000 radians, where neighbouring floats are 6e-5 apart
    ours = timestep_embedding(torch.from_numpy(t).float(), 256).numpy()
    np.testing.assert_allclose(ours, expected, atol=1.5e-4)


def mu_by_hand(tokens: int, steps: int) -> float:
    at_10, at_200 = 8.73809524e-05 * tokens + 1.89833333, 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    slope = (at_200 - at_10) / 190
    return slope * steps + (at_200 - 200 * slope)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (46, 92), (64, 64), (90, 90)])
@pytest.mark.parametrize("steps", [1, 4, 20, 50])
def test_mu_and_sigmas(height, width, steps):
    mu = mu_by_hand(height * width, steps)
    assert empirical_mu(height * width, steps) == pytest.approx(mu, abs=1e-12)
    s = np.linspace(1, 1 / steps, steps)
    expected = np.append(np.exp(mu) / (np.exp(mu) + 1 / s - 1), 0)
    np.testing.assert_allclose(sampling_sigmas(height * width, steps).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("side", "steps", "mu"), [
    (1024, 4, 2.291), (1024, 8, 2.268), (1024, 20, 2.198), (1024, 50, 2.023),
    (1440, 4, 1.828), (1440, 50, 1.828),
])  # fmt: skip
def test_mu_has_the_check_values_of_the_specification(side, steps, mu):
    assert round(empirical_mu((side // 16) ** 2, steps), 3) == mu


def test_guidance_token_by_token():
    rng = np.random.default_rng(1)
    cond, uncond = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 3, 5))
    expected = np.zeros_like(cond)
    for sample in range(2):
        for token in range(3):
            c, u = cond[sample, token], uncond[sample, token]
            led = u + 5.0 * (c - u)
            expected[sample, token] = led * math.sqrt((c**2).sum()) / math.sqrt((led**2).sum())
    ours = cfg_norm_rescaled(torch.from_numpy(cond), torch.from_numpy(uncond), 5.0)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


def test_packing_cell_by_cell():
    latents = np.random.default_rng(2).normal(size=(2, 3, 6, 10))
    expected = np.zeros((2, 15, 12))
    for row in range(3):
        for column in range(5):
            for channel in range(3):
                for r in (0, 1):
                    for s in (0, 1):
                        value = latents[:, channel, 2 * row + r, 2 * column + s]
                        expected[:, row * 5 + column, channel * 4 + r * 2 + s] = value
    ours = pack_latents(patchify(torch.from_numpy(latents)))
    assert np.array_equal(ours.numpy(), expected)
