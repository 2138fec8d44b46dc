"""Flow matching: the straight path from data to noise, its velocity, and the data it predicts.

Time t is a fraction: 0 is data, 1 is noise. Velocity is noise - data: x moves by dt * velocity.
Knows nothing of models, schedules or where times and noise come from. Paper: Lens report, training objective.
Letters: B batch.
"""

import torch
from torch import Tensor

from lens.errors import ShapeError


def per_sample(t: Tensor, like: Tensor) -> Tensor:
    """Return one time per sample, shaped to multiply `like`.

    Shapes: t (B,), like (B, ...) -> (B, 1, ...), in the dtype of `like`.
    Raises: ShapeError unless t holds one time per sample.
    """
    if t.shape != like.shape[:1]:
        raise ShapeError(f"t has shape {tuple(t.shape)}, but it needs ({len(like)},): one time per sample.")
    return t.to(like).reshape(-1, *[1] * (like.ndim - 1))  # (B, 1, ...)


def interpolate(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return the point at time t on the straight path from data (t=0) to noise (t=1).

    Shapes: clean and noise (B, ...), t (B,) -> (B, ...).
    Units: t is a fraction in [0, 1], never a 0..1000 step number.
    Raises: ShapeError unless t holds one time per sample and the ends have one shape.
    Paper: Lens report, training objective; Lipman et al. 2023 (arXiv:2210.02747).
    """
    _check_same_shape("clean", clean, "noise", noise)
    return torch.lerp(clean, noise, per_sample(t, like=clean))


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity of the path, noise - data; it is the same at every time."""
    _check_same_shape("clean", clean, "noise", noise)
    return noise - clean


def predict_x0(x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Return the data end of the straight path through x_t with this velocity."""
    _check_same_shape("x_t", x_t, "velocity", velocity)
    return x_t - per_sample(t, like=x_t) * velocity


def _check_same_shape(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.shape != other.shape:
        shapes = f"{tuple(tensor.shape)} and {tuple(other.shape)}"
        raise ShapeError(f"{name} and {other_name} have shapes {shapes}, but they need to be the same.")
