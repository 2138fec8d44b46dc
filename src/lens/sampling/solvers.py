"""Solvers: ways to follow a velocity from noise to data.

One function a solver, one signature. They know nothing of models, guidance or prompts: a velocity is any
function of a point and its noise level. Spec: section 5.
Letters: n steps.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from lens.errors import SettingError

Velocity = Callable[[Tensor, float], Tensor]
"""Velocity at a point and its noise level, in the point's shape."""
OnStep = Callable[[int, float, Tensor], Tensor]
"""Called after each step with (step done, noise level reached, point); returns the point to go on from."""


class Solver(Protocol):
    """Follow the velocity through the noise levels and return the last point."""

    def __call__(
        self, velocity: Velocity, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None
    ) -> Tensor: ...


def solve_euler(velocity: Velocity, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None) -> Tensor:
    """First order: a straight line along the velocity of each step's start.

    Shapes: sigmas (n + 1,), x any -> x.
    """
    levels = sigmas.tolist()
    for step, (sigma, after) in enumerate(pairwise(levels)):
        x = x + (after - sigma) * velocity(x, sigma)
        if on_step is not None:
            x = on_step(step, after, x)
    return x


def solve_adams_bashforth(
    velocity: Velocity, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None
) -> Tensor:
    """Second order at one velocity a step: the line through it and the one before, carried forward.

    The first step is Euler's. Steps may differ in length.

    Shapes: sigmas (n + 1,), x any -> x.
    Paper: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.5 (variable steps).
    """
    levels = sigmas.tolist()
    length_before, slope_before = 0.0, None
    for step, (sigma, after) in enumerate(pairwise(levels)):
        length, slope = after - sigma, velocity(x, sigma)
        if slope_before is None:
            x = x + length * slope
        else:
            lean = length / (2 * length_before)
            x = x + length * ((1 + lean) * slope - lean * slope_before)
        length_before, slope_before = length, slope
        if on_step is not None:
            x = on_step(step, after, x)
    return x


SOLVERS: dict[str, Solver] = {"euler": solve_euler, "ab2": solve_adams_bashforth}
"""Solvers by the name that a request gives."""


def solver_named(name: str) -> Solver:
    """Return the solver of this name.

    Raises: SettingError for a name that is not in the table.
    """
    if name not in SOLVERS:
        raise SettingError("solver", name, f"one of {', '.join(SOLVERS)}")
    return SOLVERS[name]
