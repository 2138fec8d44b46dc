"""Noise schedules: the shifted sigmas of sampling, and the logit-normal times of training.

Both shift time toward noise, more so for larger images. Knows nothing of models, and draws nothing itself.
Paper: Lens report, sampling and pre-training; the shift is FLUX.2's empirical one.
"""

import math

import torch
from torch import Tensor

from lens.errors import SettingError

# FLUX.2's fit: mu at 10 and at 200 steps is a line in the token count; above 4300 tokens, only the second.
MU_AT_10_STEPS = (8.73809524e-05, 1.89833333)
MU_AT_200_STEPS = (0.00016927, 0.45666666)
MU_CUTOFF_TOKENS = 4300


def empirical_mu(num_tokens: int, num_steps: int) -> float:
    """Return the log of the time shift for an image of this many tokens, sampled in this many steps.

    Units: num_steps counts sampling steps, never the 1000 of a training scale.
    """
    at_10 = MU_AT_10_STEPS[0] * num_tokens + MU_AT_10_STEPS[1]
    at_200 = MU_AT_200_STEPS[0] * num_tokens + MU_AT_200_STEPS[1]
    if num_tokens > MU_CUTOFF_TOKENS:
        return at_200
    return at_10 + (at_200 - at_10) * (num_steps - 10) / (200 - 10)


def shift_times(t: Tensor, mu: float) -> Tensor:
    """Return times shifted toward noise by mu: e^mu / (e^mu + 1/t - 1); 0 and 1 stay where they are."""
    scaled = math.exp(mu) * t
    return scaled / (scaled + 1 - t)


def sampling_sigmas(num_tokens: int, num_steps: int) -> Tensor:
    """Return the noise levels of a sampling run, from 1 down to 0.

    Shapes: -> (num_steps + 1,), float32.
    Raises: SettingError for fewer than one step.
    """
    if num_steps < 1:
        raise SettingError("num_inference_steps", num_steps, "to be 1 or more")
    even = torch.linspace(1, 1 / num_steps, num_steps, dtype=torch.float64)
    shifted = shift_times(even, empirical_mu(num_tokens, num_steps))
    return torch.cat([shifted, shifted.new_zeros(1)]).float()


def logit_normal_times(z: Tensor, mu: float) -> Tensor:
    """Return training times sigmoid(mu + z) in (0, 1) for standard normal z."""
    return torch.sigmoid(mu + z)


def training_mu(
    num_tokens: int, mu: tuple[float, float] = (1.0, 1.3), tokens: tuple[int, int] = (256, 4096)
) -> float:
    """Return the mean of the logit-normal at a token count, on the line through two points and beyond."""
    return mu[0] + (mu[1] - mu[0]) * (num_tokens - tokens[0]) / (tokens[1] - tokens[0])
