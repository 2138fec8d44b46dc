"""Flow-matching loss: squared error of the predicted velocity against the velocity from data to noise.

Spec: section 8. Letters: B batch, C channels, h and w latent cells.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lens.core.flow import interpolate, velocity_target
from lens.losses.base import LossOutput

VelocityModel = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents (B, C, h, w), times (B,)) -> velocity (B, C, h, w)."""
PackedVelocityModel = Callable[[list[Tensor], Tensor], Sequence[Tensor]]
"""(P noisy latents (C, h, w) of any sizes, times (P,)) -> P velocities (C, h, w)."""


def flow_matching_loss(velocity: VelocityModel, clean: Tensor, *, t: Tensor, noise: Tensor) -> LossOutput:
    """Return the mean squared error of the predicted velocity at times t on the straight paths to the noise.

    Shapes: clean and noise (B, C, h, w), t (B,).
    """
    predicted = velocity(interpolate(clean, noise, t), t)                                       # (B, C, h, w)
    error = (predicted.float() - velocity_target(clean, noise)).square().flatten(1).mean(1)     # (B,)
    return LossOutput(error.mean(), {})


def packed_flow_matching_errors(
    velocity: PackedVelocityModel, clean: Sequence[Tensor], *, t: Tensor, noise: Sequence[Tensor]
) -> Tensor:
    """Return the mean squared error of the predicted velocity of each image; sizes may differ.

    Shapes: clean and noise P of (C, h, w), t (P,) -> (P,).
    """
    ends = zip(clean, noise, t[:, None], strict=True)
    noisy = [interpolate(one[None], eps[None], time)[0] for one, eps, time in ends]
    predicted = velocity(noisy, t)
    targets = map(velocity_target, clean, noise)
    errors = [(a.float() - b).square().mean() for a, b in zip(predicted, targets, strict=True)]
    return torch.stack(errors)
