"""GPUs by the names of their drivers, and hours by peak and utilization."""

import pytest

from lens.train.cost.gpus import GPU_SPECS, find_gpu_name, gpu_hours


def test_a_gpu_is_found_by_the_name_of_its_driver():
    assert find_gpu_name("NVIDIA H100 80GB HBM3") == "h100"
    assert find_gpu_name("NVIDIA GeForce RTX 4090") == "rtx4090"
    assert find_gpu_name("Tesla T4") is None


def test_an_hour_has_3600_seconds_at_the_share_of_the_peak():
    assert gpu_hours(312e12 * 0.5 * 7200, GPU_SPECS["a100"], 0.5) == pytest.approx(2)
