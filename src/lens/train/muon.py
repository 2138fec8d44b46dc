"""The Muon optimizer: momentum whose matrices are orthogonalized before they are applied.

All directions of a weight move at the same pace, while Adam moves weak directions less. In the nano
autoencoder the weak directions are colours and fine detail. AdamW updates vectors and embedding tables.
Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lens.train.distributed import distribute_like, full_tensor

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz step, from the source; they reach singular values near 1 in few steps."""
NUM_NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_DTYPE = torch.bfloat16
"""The steps tolerate its rounding, and GPUs multiply it fastest."""


class Muon(torch.optim.Optimizer):
    """Update = lr * max(1, rows/columns)^0.5 * orthogonal(Nesterov momentum); convolutions are flattened."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        nesterov = full_tensor(gradient.lerp(momentum, group["momentum"]))
        matrix = nesterov.flatten(1)                                               # (rows, columns)
        rows, columns = matrix.shape
        direction = orthogonalize(matrix) * max(1.0, rows / columns) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(distribute_like(parameter, direction.view_as(nesterov)), alpha=-group["lr"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return the matrix with its singular values moved near 1, by Newton-Schulz steps.

    Shapes: (rows, columns) -> the same.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if is_tall else matrix
    x = (x / (x.norm() + 1e-7)).to(NEWTON_SCHULZ_DTYPE)
    for _ in range(NUM_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrix.dtype)
