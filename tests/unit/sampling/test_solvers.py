"""Solvers against differential equations with a known solution."""

import math

import pytest
import torch
from heun_solver import HEUN
from tiny_models import tiny_pipeline

from lens.errors import SettingError
from lens.sampling.solvers import SOLVERS, get_solver


def uneven_levels(num_steps):
    """Noise levels from 1 to 0 whose steps differ in length by up to a factor of three."""
    even = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    return 0.5 * even + 0.5 * even**2


def error_of(solver, num_steps):
    """Distance from the solution of dx/ds = x cos(s), which is x(s) = x(1) exp(sin(s) - sin(1))."""
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    end = solver(lambda x, sigma: x * math.cos(sigma), uneven_levels(num_steps), start)
    return (end - start * math.exp(-math.sin(1))).abs().max().item()


ALL = {**SOLVERS, "test_heun": HEUN}


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ab2", 2), ("test_heun", 2)])
def test_halving_the_steps_divides_the_error_by_two_to_the_order(name, order):
    observed = math.log2(error_of(ALL[name], 64) / error_of(ALL[name], 128))
    assert observed == pytest.approx(order, abs=0.1)


def test_the_second_order_solver_is_far_closer_at_twenty_steps():
    assert error_of(SOLVERS["ab2"], 20) < 0.15 * error_of(SOLVERS["euler"], 20)


@pytest.mark.parametrize("solver", ALL.values(), ids=ALL)
def test_a_straight_path_is_followed_exactly_in_any_number_of_steps(solver):
    start, slope = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[0.5, -1.0], [2.0, 7.0]])
    for num_steps in (1, 2, 7):
        end = solver(lambda x, sigma: slope, uneven_levels(num_steps), start)
        torch.testing.assert_close(end, start - slope)


def test_adams_bashforth_errs_in_its_first_step_alone_where_the_velocity_is_linear_in_time():
    # dx/ds = 2 s from s = 1 to 0 is -1; Euler's first step, 1 to 0.5, errs by 0.25, the others add nothing.
    levels = torch.tensor([1.0, 0.5, 0.2, 0.0], dtype=torch.float64)
    end = SOLVERS["ab2"](lambda x, sigma: torch.full_like(x, 2 * sigma), levels, torch.zeros(1).double())
    assert end.item() == pytest.approx(-1 - 0.25)


@pytest.mark.parametrize("solver", ALL.values(), ids=ALL)
def test_each_step_starts_at_its_own_level_and_needs_the_stated_number_of_velocities(solver):
    asked = []

    def velocity(x, sigma):
        asked.append(sigma)
        return x

    solver(velocity, torch.tensor([1.0, 0.75, 0.25, 0.0]), torch.ones(2))
    assert len(asked) == 3 * solver.num_velocities
    assert asked[:: solver.num_velocities] == [1.0, 0.75, 0.25]


@pytest.mark.parametrize("name", ["euler", "ab2"])
def test_euler_and_adams_bashforth_need_one_velocity_a_step(name):
    assert SOLVERS[name].num_velocities == 1


def test_a_step_of_several_velocities_is_evaluated_at_the_points_that_its_rule_yields():
    asked = []

    def velocity(x, sigma):
        asked.append((sigma, x.item()))
        return torch.full_like(x, 2 * sigma)  # dx/ds = 2 s, which the trapezoidal rule integrates exactly

    end = HEUN(velocity, torch.tensor([1.0, 0.5, 0.0]), torch.zeros(1))
    assert asked == [(1.0, 0.0), (0.5, -1.0), (0.5, -0.75), (0.0, -1.25)]
    assert end.item() == -1


@pytest.mark.parametrize("solver", ALL.values(), ids=ALL)
def test_each_step_reports_the_level_reached_and_goes_on_from_the_point_returned(solver):
    seen = []

    def on_step(step, sigma, x):
        seen.append((step, sigma, x.item()))
        return x + 100

    end = solver(lambda x, sigma: torch.ones_like(x), torch.tensor([1.0, 0.5, 0.0]), torch.zeros(1), on_step)
    assert seen == [(0, 0.5, -0.5), (1, 0.0, 99.0)]
    assert end.item() == 199


def test_an_unknown_solver_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match="'heun9', but it needs one of euler, ab2"):
        get_solver("heun9")


@pytest.mark.parametrize("solver", ALL.values(), ids=ALL)
def test_interleaved_trajectories_equal_those_solved_alone_to_the_bit(solver):
    def velocity(x, sigma):
        return x.sin() * (1 + sigma)

    levels = {5: uneven_levels(5).float(), 8: uneven_levels(8).float()}
    starts = {num_steps: torch.linspace(-2, 2, num_steps) for num_steps in levels}
    points, rules = dict(starts), {num_steps: solver.new_step() for num_steps in levels}
    for step in range(8):  # one has ended before the other
        for num_steps in [some for some in levels if step < some]:
            evaluations = rules[num_steps](points[num_steps], *levels[num_steps][step : step + 2].tolist())
            point = next(evaluations)
            for _ in range(solver.num_velocities - 1):
                point = evaluations.send(velocity(*point))
            with pytest.raises(StopIteration) as end:
                evaluations.send(velocity(*point))
            points[num_steps] = end.value.value
    for num_steps, start in starts.items():
        assert torch.equal(points[num_steps], solver(velocity, levels[num_steps], start))


def test_a_solver_that_is_added_to_the_table_draws_in_the_pipeline(monkeypatch):
    pipeline = tiny_pipeline()
    sigmas = []
    pipeline.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: sigmas.append(kwargs["timestep"].item()), with_kwargs=True
    )

    def draw(solver):
        return pipeline(
            "a fox", height=64, width=64, num_inference_steps=3, guidance_scale=1.0, output_type="pt",
            generator=torch.Generator().manual_seed(0), solver=solver,
        ).images  # fmt: skip

    with pytest.raises(SettingError, match="test_heun"):
        draw("test_heun")
    monkeypatch.setitem(SOLVERS, "test_heun", HEUN)
    drawn = draw("test_heun")
    assert len(sigmas) == 6 and sigmas[1::2] == [*sigmas[2::2], 0.0]
    assert (drawn - draw("euler")).abs().max() > 1e-3
