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

VelocityFn = Callable[[Tensor, float], Tensor]
"""Velocity at a point and its noise level, in the point's shape."""
OnStep = Callable[[int, float, Tensor], Tensor]
"""Called after each step with (step done, noise level reached, point); returns the point to go on from."""


class Solver(Protocol):
    """Follow the velocity through the noise levels and return the last point."""

    def __call__(
        self, velocity: VelocityFn, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None
    ) -> Tensor: ...


class SolverStep(Protocol):
    """The steps of one picture's path, one call each: what a solver does where its loop is someone else's."""

    def __call__(self, x: Tensor, velocity: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Return the point at the level `after`, from x at the level sigma and the velocity there."""
        ...


class EulerStep:
    """First order: a straight line along the velocity of each step's start."""

    def __call__(self, x: Tensor, velocity: Tensor, sigma: float, sigma_next: float) -> Tensor:
        return x + (sigma_next - sigma) * velocity


class AdamsBashforthStep:
    """Second order at one velocity a step: the line through it and the one before, carried forward.

    The first step is Euler's. Steps may differ in length.
    Paper: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.5 (variable steps).
    """

    def __init__(self):
        self._previous_length = 0.0
        self._previous_velocity: Tensor | None = None

    def __call__(self, x: Tensor, velocity: Tensor, sigma: float, sigma_next: float) -> Tensor:
        length = sigma_next - sigma
        if self._previous_velocity is None:
            x = x + length * velocity
        else:
            ratio = length / (2 * self._previous_length)
            x = x + length * ((1 + ratio) * velocity - ratio * self._previous_velocity)
        self._previous_length, self._previous_velocity = length, velocity
        return x


def solve_euler(velocity: VelocityFn, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Follow the velocity in Euler's steps.

    Shapes: sigmas (n + 1,), x any -> x.
    """
    return _integrate(EulerStep(), velocity, sigmas, x, on_step)


def solve_adams_bashforth(
    velocity: VelocityFn, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None
) -> Tensor:
    """Follow the velocity in steps of Adams and Bashforth.

    Shapes: sigmas (n + 1,), x any -> x.
    """
    return _integrate(AdamsBashforthStep(), velocity, sigmas, x, on_step)


def _integrate(
    solver_step: SolverStep, velocity: VelocityFn, sigmas: Tensor, x: Tensor, on_step: OnStep | None
) -> Tensor:
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        x = solver_step(x, velocity(x, sigma), sigma, sigma_next)
        if on_step is not None:
            x = on_step(step, sigma_next, x)
    return x


SOLVERS: dict[str, Solver] = {"euler": solve_euler, "ab2": solve_adams_bashforth}
"""Solvers by the name that a request gives."""

SOLVER_STEPS: dict[str, Callable[[], SolverStep]] = {"euler": EulerStep, "ab2": AdamsBashforthStep}
"""Their steps, for whoever draws several pictures at once that are not at the same step."""


def get_solver(name: str) -> Solver:
    """Return the solver of this name.

    Raises: SettingError for a name that is not in the table.
    """
    if name not in SOLVERS:
        raise SettingError("solver", name, f"one of {', '.join(SOLVERS)}")
    return SOLVERS[name]
