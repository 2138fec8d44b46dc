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


class Steps(Protocol):
    """The steps of one picture's path, one call each: what a solver does where its loop is someone else's."""

    def __call__(self, x: Tensor, slope: Tensor, sigma: float, after: float) -> Tensor:
        """Return the point at the level `after`, from x at the level sigma and the velocity there."""
        ...


class EulerSteps:
    """First order: a straight line along the velocity of each step's start."""

    def __call__(self, x: Tensor, slope: Tensor, sigma: float, after: float) -> Tensor:
        return x + (after - sigma) * slope


class AdamsBashforthSteps:
    """Second order at one velocity a step: the line through it and the one before, carried forward.

    The first step is Euler's. Steps may differ in length.
    Paper: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.5 (variable steps).
    """

    def __init__(self):
        self._length_before = 0.0
        self._slope_before: Tensor | None = None

    def __call__(self, x: Tensor, slope: Tensor, sigma: float, after: float) -> Tensor:
        length = after - sigma
        if self._slope_before is None:
            x = x + length * slope
        else:
            lean = length / (2 * self._length_before)
            x = x + length * ((1 + lean) * slope - lean * self._slope_before)
        self._length_before, self._slope_before = length, slope
        return x


def solve_euler(velocity: Velocity, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Follow the velocity in Euler's steps.

    Shapes: sigmas (n + 1,), x any -> x.
    """
    return _follow(EulerSteps(), velocity, sigmas, x, on_step)


def solve_adams_bashforth(
    velocity: Velocity, sigmas: Tensor, x: Tensor, on_step: OnStep | None = None
) -> Tensor:
    """Follow the velocity in steps of Adams and Bashforth.

    Shapes: sigmas (n + 1,), x any -> x.
    """
    return _follow(AdamsBashforthSteps(), velocity, sigmas, x, on_step)


def _follow(steps: Steps, velocity: Velocity, sigmas: Tensor, x: Tensor, on_step: OnStep | None) -> Tensor:
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist())):
        x = steps(x, velocity(x, sigma), sigma, after)
        if on_step is not None:
            x = on_step(step, after, x)
    return x


SOLVERS: dict[str, Solver] = {"euler": solve_euler, "ab2": solve_adams_bashforth}
"""Solvers by the name that a request gives."""

STEPS: dict[str, Callable[[], Steps]] = {"euler": EulerSteps, "ab2": AdamsBashforthSteps}
"""Their steps, for whoever draws several pictures at once that are not at the same step."""


def solver_named(name: str) -> Solver:
    """Return the solver of this name.

    Raises: SettingError for a name that is not in the table.
    """
    if name not in SOLVERS:
        raise SettingError("solver", name, f"one of {', '.join(SOLVERS)}")
    return SOLVERS[name]
