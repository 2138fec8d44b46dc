"""The pre-training loss: how far the predicted velocity is from the one that leads from data to noise.

Spec: section 8. Letters: B batch, C channels, h and w latent cells.
"""

from collections.abc import Callable

from torch import Tensor

from lens.core.flow import interpolate, velocity_target
from lens.objectives.objective import Objective

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents (B, C, h, w), times (B,)) -> velocity (B, C, h, w)."""


def flow_matching_loss(velocity: Velocity, clean: Tensor, *, t: Tensor, noise: Tensor) -> Objective:
    """Mean squared error of the predicted velocity at the times t on the straight paths from clean to noise.

    Shapes: clean and noise (B, C, h, w), t (B,).
    """
    predicted = velocity(interpolate(clean, noise, t), t)                                       # (B, C, h, w)
    error = (predicted.float() - velocity_target(clean, noise)).square().flatten(1).mean(1)     # (B,)
    return Objective(error.mean(), {})
