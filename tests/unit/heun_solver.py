"""Heun's solver, which needs two velocities a step: only tests put it into the table."""

from lens.sampling.solvers import Solver


class HeunStep:
    """Second order: the mean of the velocities at the start and at the end of an Euler step."""

    def __call__(self, x, sigma, sigma_next):
        length = sigma_next - sigma
        first = yield x, sigma
        second = yield x + length * first, sigma_next
        return x + length / 2 * (first + second)


HEUN = Solver("Heun, second order", HeunStep, num_velocities=2)
