"""Distillation to few steps: the terms that teach a student and its critics, as gradients in x_0 space.

Distribution matching (DMD2, arXiv 2405.14867) and guidance augmentation (decoupled DMD, 2511.22677) say where
a student's picture should go; both need no gradient through a network. Knows nothing of networks, and draws
nothing: times and noise come in. Spec: section 10.
Letters: B batch, C channels, h and w latent cells, n steps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lens.core.flow import per_sample
from lens.core.schedule import empirical_mu, sampling_sigmas, shift_times

MIN_RENOISING_TIME, MAX_RENOISING_TIME = 0.02, 0.98
"""Times that a student's picture is noised to: at the very ends there is nothing to tell."""


def student_times(num_tokens: int, num_steps: int) -> Tensor:
    """Return the noise levels that a student sees: those at which the sampler asks for a velocity.

    Shapes: -> (n,), from 1 downward; the 0 that sampling ends at is not among them.
    """
    return sampling_sigmas(num_tokens, num_steps)[:-1]


def teacher_times(num_tokens: int, num_steps: int, step: int, num_substeps: int) -> Tensor:
    """Return the noise levels at which a teacher goes through one of a student's steps in several of its own.

    The student's first and next time are the ends; between them lies what the same shift makes of even times.

    Shapes: -> (substeps + 1,), downward.
    """
    even = torch.linspace(1, 0, num_steps * num_substeps + 1, dtype=torch.float64)
    shifted = shift_times(even, empirical_mu(num_tokens, num_steps)).float()
    return shifted[step * num_substeps : (step + 1) * num_substeps + 1]


def renoising_times(u: Tensor, ceiling: float | Tensor = MAX_RENOISING_TIME) -> Tensor:
    """Return times in [0.02, 0.98] from uniform numbers in [0, 1), none above the ceiling of its sample.

    Distribution matching takes the whole range, guidance the student's own time as the ceiling: what it asks
    for must lie within what that step can still change.

    Shapes: u (B,), ceiling a number or (B,) -> (B,).
    """
    latest = torch.as_tensor(ceiling, dtype=u.dtype, device=u.device).clamp(max=MAX_RENOISING_TIME)
    return torch.lerp(latest.clamp(max=MIN_RENOISING_TIME), latest, u)                               # (B,)


def distribution_matching_gradient(x_0: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    """Return (x_0 - teacher) - (x_0 - fake), over each sample's mean |x_0 - teacher|; NaN becomes 0.

    Both are predictions of the clean picture from one noised x_0, with text. Where the fake model, which
    knows what the student draws, agrees with the teacher, nothing is asked for.

    Shapes: all (B, C, h, w) -> (B, C, h, w).
    """
    return torch.nan_to_num((fake - teacher) / distance(x_0, teacher), nan=0.0, posinf=0.0, neginf=0.0)


def guidance_gradient(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Return what guidance adds to a prediction, (scale - 1)(cond - uncond), as a gradient: its negative.

    Both are the teacher's predictions of the clean picture. A step against this gradient moves toward where
    guidance leads; there is no point at which it stops.

    Shapes: all (B, C, h, w) -> (B, C, h, w).
    """
    return (1 - scale) * (cond - uncond)


def distance(x_0: Tensor, teacher: Tensor) -> Tensor:
    """Return each sample's mean |x_0 - teacher|.

    Shapes: both (B, C, h, w) -> (B, 1, 1, 1).
    """
    return (x_0 - teacher).abs().mean(dim=tuple(range(1, x_0.ndim)), keepdim=True)


def surrogate_loss(x_0: Tensor, gradient: Tensor) -> Tensor:
    """Return 1/2 |x_0 - stopgrad(x_0 - gradient)|^2, a mean over all numbers: its gradient is the given one.

    Shapes: both (B, C, h, w) -> ().
    """
    target = (x_0 - gradient).detach()
    return 0.5 * F.mse_loss(x_0, target)


def trajectory_target(x_t: Tensor, x_next: Tensor, t: float, t_next: float) -> Tensor:
    """Return the clean picture that leads from x_t straight through where the teacher is at the next time.

    A student that predicts it takes in one step the teacher's several (progressive distillation,
    arXiv 2202.00512). That point follows from x_t alone, so there is one answer to learn.

    Shapes: both (B, C, h, w) -> (B, C, h, w).
    """
    return x_t - t * (x_t - x_next) / (t - t_next)


def trajectory_loss(x_0: Tensor, target: Tensor, t: float) -> Tensor:
    """Return the mean squared difference of the velocities from x_t toward a prediction and its aim.

    Shapes: x_0 and aim (B, C, h, w) -> ().
    """
    return ((x_0 - target) / t).square().mean()


def generator_loss(student_logits: Tensor) -> Tensor:
    """Return the mean softplus(-logit): small where the student's pictures pass for real.

    Shapes: (B,) -> ().
    """
    return F.softplus(-student_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Return the logistic loss of telling real pictures (positive) from the student's.

    Shapes: both (B,) -> ().
    """
    return F.softplus(-real_logits.float()).mean() + F.softplus(student_logits.float()).mean()


def approx_r1_penalty(logits: Tensor, perturbed_logits: Tensor, gamma: float) -> Tensor:
    """Return gamma/2 times the mean squared change of real pictures' logits under a little noise.

    An approximate R1 penalty (APT, arXiv 2501.08316): it needs no second derivative.

    Shapes: both (B,) -> ().
    """
    return 0.5 * gamma * (logits.float() - perturbed_logits.float()).square().mean()


def perturb(x_t: Tensor, noise: Tensor, scale: float = 0.1) -> Tensor:
    """Return noisy pictures moved by a little more noise.

    Shapes: both (B, C, h, w) -> (B, C, h, w).
    """
    return x_t + scale * noise


def inject_gradient(x_0: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Return a loss of this value whose gradient at x_0 is the given one, worked out elsewhere.

    Shapes: x_0 and gradient (B, C, h, w), value () -> ().
    """
    return value.detach() + ((x_0 - x_0.detach()) * gradient.detach()).sum()


def next_student_input(x_0: Tensor, x_t: Tensor, t: Tensor, t_next: Tensor, noise: Tensor | None) -> Tensor:
    """Return a student's input at its next time: its picture, noised anew, or by the noise it saw in x_t.

    With `noise` None this is a step of Euler's, as the pipeline samples.

    Shapes: x_0, x_t and noise (B, C, h, w), t and t_next (B,) -> (B, C, h, w).
    """
    level, level_next = per_sample(t, like=x_t), per_sample(t_next, like=x_t)
    epsilon = (x_t - (1 - level) * x_0) / level if noise is None else noise
    return (1 - level_next) * x_0 + level_next * epsilon


def gradient_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean over samples of the cosine between two gradients; 0 where one of them is zero.

    Shapes: both (B, C, h, w) -> ().
    """
    return F.cosine_similarity(a.float().flatten(1), b.float().flatten(1), dim=1, eps=1e-12).mean()
