"""Intervals of means of few values."""

import numpy as np
import pytest

from lens.evals.statistics import estimate_mean


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
