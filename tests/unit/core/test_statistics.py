"""Intervals of means of few values."""

import numpy as np
import pytest

from lens.core.statistics import bootstrap_means, estimate_mean, lower_bound, student_t, t_test_power


def test_three_values_have_the_interval_that_tables_of_students_t_give():
    found = estimate_mean([1.0, 2.0, 6.0])
    assert found.mean == 3
    assert found.interval == pytest.approx((3 - 6.572, 3 + 6.572), abs=1e-3)  # 4.3027 * sqrt(7) / sqrt(3)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_intervals_hold_the_true_mean_95_times_in_a_hundred(count):
    rng = np.random.default_rng(count)
    found = [estimate_mean(rng.normal(0.3, 2.0, count).tolist()).interval for _ in range(4000)]
    share = np.mean([low <= 0.3 <= high for low, high in found])
    assert share == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    "df, quantile", [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (30, 2.04227), (1e9, 1.95996)]
)
def test_students_t_is_that_of_tables(df, quantile):
    assert student_t(df) == pytest.approx(quantile, rel=1e-4)
    assert student_t(df + 0.5) <= student_t(df)


def test_the_power_of_a_t_test_is_that_of_tables_and_its_level_without_a_difference():
    # Cohen's table for one sample, two sides, 5%: d = 1 with 10 values has power 0.80 (0.803).
    assert t_test_power(1.0, 1 / np.sqrt(10), 9) == pytest.approx(0.803, abs=0.002)
    assert t_test_power(0.0, 1.0, 4) == pytest.approx(0.05, abs=0.001)
    assert t_test_power(1.96, 1.0, 1e6) == pytest.approx(0.5, abs=0.002)


def test_a_one_sided_bound_is_that_of_tables_of_students_t():
    # Three values with standard deviation sqrt(7); the 80% point of t with 2 degrees of freedom is 1.0607.
    assert lower_bound([1.0, 2.0, 6.0], 0.8) == pytest.approx(3 - 1.0607 * (7 / 3) ** 0.5, abs=1e-3)
    assert lower_bound([0.25, 0.25, 0.25], 0.9) == 0.25


def test_a_bootstrap_of_clusters_has_the_error_of_their_means_and_pairs_the_rows():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1, 40)
    values = np.stack([common, common + 0.5])
    means = bootstrap_means(values, [""] * 40, seed=1)
    assert means.shape == (10_000, 2)
    assert means.std(0) == pytest.approx([common.std() / 40**0.5] * 2, rel=0.05)
    assert means[:, 1] - means[:, 0] == pytest.approx(0.5)


def test_a_bootstrap_keeps_the_number_of_clusters_of_every_stratum():
    values = np.array([[0.0] * 3 + [1.0] * 5])
    assert bootstrap_means(values, ["a"] * 3 + ["b"] * 5, seed=0, num_samples=50) == pytest.approx(5 / 8)


def test_bootstrap_intervals_of_a_paired_gain_hold_the_true_one():
    rng, held = np.random.default_rng(0), 0
    for turn in range(200):
        chances = rng.uniform(0.2, 0.6, 40)
        values = np.stack([rng.binomial(2, chances), rng.binomial(2, chances + 0.2)]) / 2
        means = bootstrap_means(values, [""] * 40, turn, num_samples=500)
        low, high = np.quantile(means[:, 1] - means[:, 0], [0.025, 0.975])
        held += low <= 0.2 <= high
    assert held / 200 == pytest.approx(0.95, abs=0.05)
