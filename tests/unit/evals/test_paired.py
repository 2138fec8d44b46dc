"""Paired differences over seeds and prompts: their intervals hold, and the power is what simulations give."""

import numpy as np
import pytest

from lens.core.statistics import estimate_mean
from lens.evals.paired import Spread, paired_difference

SPREADS = [Spread(0.03, 0.0, 0.6), Spread(0.03, 0.15, 0.6), Spread(0.0, 0.0, 0.5)]


def draw(rng, spread, mean, num_seeds, num_prompts):
    """Return differences (S, P) with normal effects."""
    return (
        mean
        + spread.seed * rng.normal(size=(num_seeds, 1))
        + spread.prompt * rng.normal(size=(1, num_prompts))
        + spread.rest * rng.normal(size=(num_seeds, num_prompts))
    )


@pytest.mark.parametrize("spread", SPREADS)
def test_intervals_hold_the_true_difference_95_times_in_a_hundred(spread):
    rng = np.random.default_rng(0)
    found = [
        paired_difference(draw(rng, spread, 0.1, 5, 60), np.zeros((5, 60))).estimate.interval
        for _ in range(2000)
    ]
    share = np.mean([low <= 0.1 <= high for low, high in found])
    assert 0.94 <= share <= 0.985


def test_where_prompts_have_no_effect_the_interval_is_students_over_the_seeds():
    passed = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1]], bool)
    against = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1]], bool)
    found = paired_difference(passed, against)
    assert found.spread.prompt == 0
    by_seed = estimate_mean((passed.mean(1) - against.mean(1)).tolist())
    assert found.estimate == pytest.approx(by_seed)


def test_the_causes_of_spread_are_told_apart():
    spread = Spread(0.1, 0.3, 0.5)
    found = paired_difference(draw(np.random.default_rng(1), spread, 0, 300, 300), np.zeros((300, 300)))
    assert found.spread == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("num_seeds, num_prompts", [(5, 300), (8, 120)])
def test_the_power_computed_beforehand_is_the_share_of_simulated_studies_that_see_three_points(
    num_seeds, num_prompts
):
    rng, spread = np.random.default_rng(2), Spread(0.02, 0.0, 0.5)
    seen = 0
    for _ in range(1500):
        differences = draw(rng, spread, 0.03, num_seeds, num_prompts).mean(1)
        low, high = estimate_mean(differences.tolist()).interval
        seen += not low <= 0 <= high
    assert spread.power(0.03, num_seeds, num_prompts) == pytest.approx(seen / 1500, abs=0.03)


def test_what_is_needed_is_the_least_multiple_that_has_the_half_width():
    spread = Spread(0.02, 0.1, 0.5)
    factor = spread.needed_factor(0.015, 5, 120)
    assert factor > 1
    assert spread.half_width(5 * factor, 120 * factor) <= 0.015
    assert spread.half_width(5 * (factor - 1), 120 * (factor - 1)) > 0.015
    assert Spread(0.001, 0.0, 0.05).needed_factor(0.015, 5, 120) == 1
