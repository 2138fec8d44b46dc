"""ODE solvers that follow a velocity field from noise to data, and the table of their names.

To add a solver, write its step rule and add an entry to `SOLVERS`. The command, the HTTP API, the studio and
the recipes read their choices from that table. The pipeline and the serving engine run the same step rule.
Knows nothing of models, guidance or prompts: a velocity is any function of a point and its noise level.
Loads no torch, so that the command can list solvers at once. Spec: section 5. Letters: n steps.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from lens.errors import SettingError

if TYPE_CHECKING:
    from torch import Tensor

VelocityFn = Callable[["Tensor", float], "Tensor"]
"""Return the velocity at a point and its noise level, in the point's shape."""
OnStep = Callable[[int, float, "Tensor"], "Tensor"]
"""Called after each step with (step, noise level reached, point); returns the point for the next step."""
Evaluations = Generator[tuple["Tensor", float], "Tensor", "Tensor"]
"""One step: yields each point and noise level whose velocity it needs, receives that velocity, and returns
the point at the end of the step."""


class SolverStep(Protocol):
    """The step rule of a solver, for one trajectory; an instance may keep what the next step needs."""

    def __call__(self, x: "Tensor", sigma: float, sigma_next: float) -> Evaluations:
        """Start the step from x at the level `sigma` to the level `sigma_next`."""
        ...


class EulerStep:
    """First order: a straight line along the velocity at the start of the step."""

    def __call__(self, x: "Tensor", sigma: float, sigma_next: float) -> Evaluations:
        velocity = yield x, sigma
        return x + (sigma_next - sigma) * velocity


class AdamsBashforthStep:
    """Second order with one velocity a step: extrapolates from the current and the previous velocity.

    The first step is an Euler step. Steps may differ in length.
    Paper: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.5 (variable steps).
    """

    def __init__(self):
        self._previous_length = 0.0
        self._previous_velocity: Tensor | None = None

    def __call__(self, x: "Tensor", sigma: float, sigma_next: float) -> Evaluations:
        velocity = yield x, sigma
        length = sigma_next - sigma
        if self._previous_velocity is None:
            x = x + length * velocity
        else:
            ratio = length / (2 * self._previous_length)
            x = x + length * ((1 + ratio) * velocity - ratio * self._previous_velocity)
        self._previous_length, self._previous_velocity = length, velocity
        return x


@dataclass(frozen=True)
class Solver:
    """An entry of the table; calling it solves from the first noise level to the last."""

    label: str
    """Name that the studio shows."""
    new_step: Callable[[], SolverStep]
    """Return the step rule for a new trajectory."""
    num_velocities: int = 1
    """Velocities that each step needs, which is its cost in passes of the denoiser."""

    @property
    def title(self) -> str:
        """Its name alone, as other tools write it."""
        return self.label.partition(",")[0]

    def __call__(
        self,
        velocity: VelocityFn,
        sigmas: "Tensor",
        x: "Tensor",
        on_step: OnStep | None = None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> "Tensor":
        """Follow the velocity through the noise levels and return the last point.

        `is_interrupted` is asked before each step; after True the point so far is returned.

        Shapes: sigmas (n + 1,), x any -> x.
        """
        solver_step = self.new_step()
        for step, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
            if is_interrupted():
                break
            x = _run_step(solver_step(x, sigma, sigma_next), velocity)
            if on_step is not None:
                x = on_step(step, sigma_next, x)
        return x


DEFAULT_SOLVER = "euler"
SOLVERS: dict[str, Solver] = {
    "euler": Solver("Euler, first order", EulerStep),
    "ab2": Solver("Adams-Bashforth, second order", AdamsBashforthStep),
}
"""All solvers, by the name that requests, options and recipes use."""


def get_solver(name: str) -> Solver:
    """Return the solver of this name.

    Raises: SettingError for a name that is not in the table.
    """
    if name not in SOLVERS:
        raise SettingError("solver", name, f"one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def _run_step(evaluations: Evaluations, velocity: VelocityFn) -> "Tensor":
    point = next(evaluations)
    while True:
        try:
            point = evaluations.send(velocity(*point))
        except StopIteration as end:
            return end.value
