"""The cost model: tokens times steps at measured rates."""

from dataclasses import replace
from pathlib import Path

import pytest
from heun_solver import HEUN

from lens.sampling.solvers import SOLVERS
from lens.serve.engine.cost_model import DEFAULT_RATE_S, CostModel, estimate_text_tokens, request_cost
from lens.serve.engine.request import GenerationRequest

PLAIN = GenerationRequest("turbo", "x" * 40, seed=0, height=96, width=176, steps=4, guidance=1.0)
IMAGE, TEXT = 6 * 11, 20 + 10


def test_a_step_reads_a_token_a_cell_and_the_words_twice_with_guidance():
    assert request_cost(PLAIN).tokens_per_evaluation == IMAGE + TEXT
    assert request_cost(replace(PLAIN, guidance=3.0)).tokens_per_evaluation == 2 * IMAGE + TEXT
    both = replace(PLAIN, guidance=3.0, negative_prompt="y" * 80)
    assert request_cost(both).tokens_per_evaluation == 2 * IMAGE + TEXT + (20 + 20)
    assert request_cost(replace(both, guidance=1.0)).tokens_per_evaluation == IMAGE + TEXT


def test_each_velocity_of_a_step_costs_as_much_as_a_step_of_one(monkeypatch):
    assert request_cost(PLAIN).num_evaluations == 4
    monkeypatch.setitem(SOLVERS, "test_heun", HEUN)
    assert request_cost(replace(PLAIN, solver="test_heun")).num_evaluations == 8


def test_a_prompt_longer_than_the_encoder_reads_costs_no_more():
    assert estimate_text_tokens("") == estimate_text_tokens("  ") == 0
    assert estimate_text_tokens("x" * 100_000) == estimate_text_tokens("x" * 50_000)


@pytest.mark.parametrize(("strength", "steps"), [(None, 12), (1.0, 20), (0.5, 10), (0.01, 1)])
def test_a_picture_to_start_from_leaves_its_strengths_share_of_the_steps(strength, steps):
    request = replace(PLAIN, steps=20, image=Path("start.png"), strength=strength)
    assert request_cost(request).num_evaluations == steps
    if strength is None:  # with a mask it starts from noise
        assert request_cost(replace(request, mask=Path("mask.png"))).num_evaluations == 20


def test_seconds_are_tokens_times_steps_and_pictures_to_decode():
    costs = CostModel()
    costs.record("turbo", "denoise", tokens=1000, seconds=0.5)
    costs.record("turbo", "decode", tokens=100, seconds=0.2)
    expected = (IMAGE + TEXT) * 4 * 0.0005 + IMAGE * 3 * 0.002
    assert costs.estimate_seconds(replace(PLAIN, previews=2)) == pytest.approx(expected)


def test_models_have_rates_of_their_own_and_a_guess_before():
    costs = CostModel()
    costs.record("turbo", "denoise", tokens=10, seconds=1.0)
    assert costs.seconds_per_token("turbo", "denoise") == 0.1
    assert (
        costs.seconds_per_token("other", "denoise")
        == costs.seconds_per_token("turbo", "decode")
        == DEFAULT_RATE_S
    )


def test_a_rate_follows_what_is_measured():
    costs = CostModel()
    costs.record("turbo", "denoise", tokens=100, seconds=1.0)
    costs.record("turbo", "denoise", tokens=0, seconds=9.0)  # nothing was drawn
    for _ in range(40):
        costs.record("turbo", "denoise", tokens=100, seconds=3.0)
    assert costs.seconds_per_token("turbo", "denoise") == pytest.approx(0.03, rel=0.01)
