"""Distillation losses for few-step students and their critics, as gradients in x_0 space.

Distribution matching (DMD2, arXiv 2405.14867) and guidance augmentation (decoupled DMD, 2511.22677) give the
gradient at a student's image and need no gradient through a network. Knows nothing of networks; times and
noise are arguments. Spec: section 10.
Letters: B batch, C channels, h and w latent cells, n steps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lens.core.flow import per_sample
from lens.core.schedule import empirical_mu, sampling_sigmas, shift_times

MIN_RENOISING_TIME, MAX_RENOISING_TIME = 0.02, 0.98
"""Range of times that a student's image is renoised to; at the ends it carries no information."""


def student_times(num_tokens: int, num_steps: int) -> Tensor:
    """Return the noise levels of a student's inputs: those at which the sampler evaluates the velocity.

    Shapes: -> (n,), decreasing from 1, without the final 0.
    """
    return sampling_sigmas(num_tokens, num_steps)[:-1]


def teacher_times(num_tokens: int, num_steps: int, step: int, num_substeps: int) -> Tensor:
    """Return the noise levels of a teacher that divides one step of a student into several substeps.

    The ends are the times of the student's step; between them are evenly spaced times under the same shift.

    Shapes: -> (num_substeps + 1,), decreasing.
    """
    even = torch.linspace(1, 0, num_steps * num_substeps + 1, dtype=torch.float64)
    shifted = shift_times(even, empirical_mu(num_tokens, num_steps)).float()
    return shifted[step * num_substeps : (step + 1) * num_substeps + 1]


def renoising_times(u: Tensor, ceiling: float | Tensor = MAX_RENOISING_TIME) -> Tensor:
    """Return times in [0.02, 0.98] from uniform numbers in [0, 1), none above the ceiling of its sample.

    Distribution matching uses the whole range. Guidance augmentation uses the student's time as the ceiling,
    since that step cannot change coarser structure.

    Shapes: u (B,), ceiling a number or (B,) -> (B,).
    """
    latest = torch.as_tensor(ceiling, dtype=u.dtype, device=u.device).clamp(max=MAX_RENOISING_TIME)
    return torch.lerp(latest.clamp(max=MIN_RENOISING_TIME), latest, u)                               # (B,)


def distribution_matching_gradient(x_0: Tensor, teacher: Tensor, fake: Tensor) -> Tensor:
    """Return (x_0 - teacher) - (x_0 - fake), over each sample's mean |x_0 - teacher|; NaN becomes 0.

    Both are predictions of the clean image from one noised x_0, with text. The fake model is trained on the
    student's images; where it agrees with the teacher, the gradient is 0.

    Shapes: all (B, C, h, w) -> (B, C, h, w).
    """
    return torch.nan_to_num((fake - teacher) / distance(x_0, teacher), nan=0.0, posinf=0.0, neginf=0.0)


def guidance_gradient(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Return the negative of what guidance adds to a prediction, (scale - 1)(cond - uncond), as a gradient.

    Both are the teacher's predictions of the clean image. A step against this gradient moves in the direction
    of guidance; the gradient does not vanish at any image.

    Shapes: all (B, C, h, w) -> (B, C, h, w).
    """
    return (1 - scale) * (cond - uncond)


def distance(x_0: Tensor, teacher: Tensor) -> Tensor:
    """Return each sample's mean |x_0 - teacher|.

    Shapes: both (B, C, h, w) -> (B, 1, 1, 1).
    """
    return (x_0 - teacher).abs().mean(dim=tuple(range(1, x_0.ndim)), keepdim=True)


def surrogate_loss(x_0: Tensor, gradient: Tensor) -> Tensor:
    """Return 1/2 |x_0 - stopgrad(x_0 - gradient)|^2, a mean over all values, whose gradient is `gradient`.

    Shapes: both (B, C, h, w) -> ().
    """
    target = (x_0 - gradient).detach()
    return 0.5 * F.mse_loss(x_0, target)


def trajectory_target(x_t: Tensor, x_next: Tensor, t: float, t_next: float) -> Tensor:
    """Return the clean image on the straight line from x_t through the teacher's point at the next time.

    A student that predicts it covers several steps of the teacher in one (progressive distillation,
    arXiv 2202.00512). The target is a function of x_t.

    Shapes: both (B, C, h, w) -> (B, C, h, w).
    """
    return x_t - t * (x_t - x_next) / (t - t_next)


def trajectory_loss(x_0: Tensor, target: Tensor, t: float) -> Tensor:
    """Return the mean squared difference of the velocities from x_t toward a prediction and its target.

    Shapes: x_0 and target (B, C, h, w) -> ().
    """
    return ((x_0 - target) / t).square().mean()


def generator_loss(student_logits: Tensor) -> Tensor:
    """Return the mean softplus(-logit): small if the discriminator classifies the student's images as real.

    Shapes: (B,) -> ().
    """
    return F.softplus(-student_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Return the logistic loss of classifying real images (positive) against the student's.

    Shapes: both (B,) -> ().
    """
    return F.softplus(-real_logits.float()).mean() + F.softplus(student_logits.float()).mean()


def approx_r1_penalty(logits: Tensor, perturbed_logits: Tensor, gamma: float) -> Tensor:
    """Return gamma/2 times the mean squared change of the logits of real images under a perturbation.

    Approximates the R1 penalty without second derivatives (APT, arXiv 2501.08316).

    Shapes: both (B,) -> ().
    """
    return 0.5 * gamma * (logits.float() - perturbed_logits.float()).square().mean()


def perturb(x_t: Tensor, noise: Tensor, scale: float = 0.1) -> Tensor:
    """Return noisy images with a little more noise added.

    Shapes: both (B, C, h, w) -> (B, C, h, w).
    """
    return x_t + scale * noise


def inject_gradient(x_0: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Return a loss of this value whose gradient at x_0 is `gradient`.

    Shapes: x_0 and gradient (B, C, h, w), value () -> ().
    """
    return value.detach() + ((x_0 - x_0.detach()) * gradient.detach()).sum()


def next_student_input(x_0: Tensor, x_t: Tensor, t: Tensor, t_next: Tensor, noise: Tensor | None) -> Tensor:
    """Return a student's next input: its image with new noise, or with the noise inferred from x_t.

    With `noise` None this is an Euler step, as in the pipeline.

    Shapes: x_0, x_t and noise (B, C, h, w), t and t_next (B,) -> (B, C, h, w).
    """
    level, level_next = per_sample(t, like=x_t), per_sample(t_next, like=x_t)
    epsilon = (x_t - (1 - level) * x_0) / level if noise is None else noise
    return (1 - level_next) * x_0 + level_next * epsilon


def gradient_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean over samples of the cosine between two gradients; 0 if either is zero.

    Shapes: both (B, C, h, w) -> ().
    """
    return F.cosine_similarity(a.float().flatten(1), b.float().flatten(1), dim=1, eps=1e-12).mean()
