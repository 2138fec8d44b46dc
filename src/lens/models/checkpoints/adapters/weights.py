"""What an adapter file holds for one layer, by kind, and the matrix that it adds there.

Knows nothing of files and modules. A magnitude makes an adapter a DoRA (arXiv:2402.09353).
Letters: O outputs, I inputs, R rank; a Kronecker product of (O1, I1) and (O2, I2) has O = O1 O2, I = I1 I2.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lens.core.products import linear
from lens.models.checkpoints.adapters.rotation import RotationWeights


class IncompleteError(Exception):
    """What is wrong with the parts of one layer, for the message about the file."""


class LoraWeights(NamedTuple):
    """The weights of a LoRA for one layer, which add alpha / R * up @ down to it."""

    down: Tensor
    """(R, I)"""
    up: Tensor
    """(O, R)"""
    alpha: float
    magnitude: Tensor | None = None
    """Of a DoRA: the norm of every row, (O, 1), or of every column, (1, I), of the adapted weight."""

    @property
    def scale(self) -> float:
        return self.alpha / len(self.down)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.up.shape[0], self.down.shape[1]

    def delta(self) -> Tensor:
        """Return the matrix that is added to the weight, without the magnitude, (O, I)."""
        return self.scale * self.up.float() @ self.down.float()

    def apply(self, x: Tensor) -> Tensor:
        """Return the matrix times x. Shapes: x (..., I) -> (..., O)."""
        return linear(self.scale * linear(x, self.down), self.up)


class LoHaWeights(NamedTuple):
    """The weights of a LoHa for one layer, which add scale * (w1_a @ w1_b) * (w2_a @ w2_b) to it."""

    w1_a: Tensor
    """(O, R1)"""
    w1_b: Tensor
    """(R1, I)"""
    w2_a: Tensor
    """(O, R2)"""
    w2_b: Tensor
    """(R2, I)"""
    scale: float
    magnitude: Tensor | None = None
    """As in LoraWeights."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.w1_a.shape[0], self.w1_b.shape[1]

    def delta(self) -> Tensor:
        """Return the matrix that is added to the weight, without the magnitude, (O, I)."""
        first, second = self.w1_a.float() @ self.w1_b.float(), self.w2_a.float() @ self.w2_b.float()
        return self.scale * first * second

    def apply(self, x: Tensor) -> Tensor:
        """Return the matrix times x; a high rank builds the matrix. Shapes: x (..., I) -> (..., O)."""
        w1_a, w1_b, w2_a, w2_b = (w.to(x.dtype) for w in (self.w1_a, self.w1_b, self.w2_a, self.w2_b))
        outputs, inputs = self.shape
        if len(w1_b) * len(w2_b) * (outputs + inputs) < outputs * inputs:
            # The product of two sums over ranks is one sum over all pairs of ranks.
            up = (w1_a[:, :, None] * w2_a[:, None]).flatten(1)  # (O, R1 R2)
            down = (w1_b[:, None] * w2_b).flatten(0, 1)  # (R1 R2, I)
            return linear(self.scale * linear(x, down), up)
        return linear(x, (w1_a @ w1_b).mul_(self.scale).mul_(w2_a @ w2_b))


class LoKrWeights(NamedTuple):
    """The weights of a LoKr for one layer, which add scale * kron(w1, w2) to it."""

    w1: Tensor
    """(O1, I1)"""
    w2: Tensor
    """(O2, I2)"""
    scale: float
    magnitude: Tensor | None = None
    """As in LoraWeights."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.w1.shape[0] * self.w2.shape[0], self.w1.shape[1] * self.w2.shape[1]

    def delta(self) -> Tensor:
        """Return the matrix that is added to the weight, without the magnitude, (O, I)."""
        return self.scale * torch.kron(self.w1.float(), self.w2.float())

    def apply(self, x: Tensor) -> Tensor:
        """Return the matrix times x, without building the matrix. Shapes: x (..., I) -> (..., O)."""
        w1, w2 = self.w1.to(x.dtype), self.w2.to(x.dtype)
        inputs = x.unflatten(-1, (w1.shape[1], w2.shape[1]))  # (..., I1, I2)
        outputs = (self.scale * w1) @ (inputs @ w2.mT)  # (..., O1, O2)
        return outputs.flatten(-2)  # (..., O)


class DifferenceWeights(NamedTuple):
    """A difference of a whole weight or bias, or a value that takes its place."""

    value: Tensor
    """(O, I) of a linear layer, (O,) of a bias or of a norm's weight."""
    replaces: bool = False
    """The value takes the place of the weight; at strength s the weight moves the part s of the way."""
    magnitude: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def delta(self) -> Tensor:
        """Return the value."""
        return self.value.float()

    def apply(self, x: Tensor) -> Tensor:
        """Return the value times x. Shapes: x (..., I) -> (..., O)."""
        return linear(x, self.value)


class GLoRAWeights(NamedTuple):
    """The weights of a GLoRA (arXiv:2306.07967), which add scale * (W @ a1 @ a2 + b1 @ b2) to a weight W."""

    a1: Tensor
    """(I, R1)"""
    a2: Tensor
    """(R1, I)"""
    b1: Tensor
    """(O, R2)"""
    b2: Tensor
    """(R2, I)"""
    scale: float
    magnitude: Tensor | None = None
    """As in LoraWeights."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.b1.shape[0], self.b2.shape[1]

    def delta(self, weight: Tensor) -> Tensor:
        """Return the matrix that is added to the weight, without the magnitude, (O, I)."""
        own = weight.float() @ self.a1.float() @ self.a2.float()
        return self.scale * (own + self.b1.float() @ self.b2.float())

    def change(self, x: Tensor, own: Callable[[Tensor], Tensor]) -> Tensor:
        """Return delta @ x, where own(x) is weight @ x. Shapes: x (..., I) -> (..., O)."""
        return self.scale * (own(linear(linear(x, self.a2), self.a1)) + linear(linear(x, self.b2), self.b1))


AdapterWeights = LoraWeights | LoHaWeights | LoKrWeights | GLoRAWeights | RotationWeights | DifferenceWeights
Adapter = dict[str, AdapterWeights]
"""Weights by layer; a bias is under the name of its parameter, such as `proj_out.bias`."""


def depends_on_weight(part: AdapterWeights) -> bool:
    """Return whether what a part adds depends on the layer's own weight, so that fused adapters change it."""
    is_multiplied = isinstance(part, GLoRAWeights | RotationWeights)
    return is_multiplied or part.magnitude is not None or getattr(part, "replaces", False)


def gain(part: AdapterWeights, weight: Tensor) -> Tensor | None:
    """Return what a DoRA multiplies weight + delta by: magnitude / norm, (O, 1) or (1, I).

    It is 0 where there is nothing to scale; None without a magnitude.
    """
    if part.magnitude is None:
        return None
    magnitude = part.magnitude.float()
    adapted = weight.float() + _delta(part, weight)  # (O, I)
    norm = adapted.norm(dim=1 if magnitude.shape[1] == 1 else 0, keepdim=True)  # (O, 1) or (1, I)
    return torch.where(norm > 0, magnitude / norm, 0.0)


def total_delta(part: AdapterWeights, weight: Tensor) -> Tensor:
    """Return what a part adds to a weight at strength 1, (O, I) in float32: for every kind, DoRA included."""
    if isinstance(part, DifferenceWeights):
        return part.delta() - weight.float() if part.replaces else part.delta()
    factor, delta = gain(part, weight), _delta(part, weight)
    return delta if factor is None else factor * (weight.float() + delta) - weight.float()


def change_of_output(part: AdapterWeights, x: Tensor, own: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what a part without its magnitude adds to own(x), the product of the layer's weight and x.

    Shapes: x (..., I) -> (..., O).
    """
    if isinstance(part, GLoRAWeights | RotationWeights):
        return part.change(x, own)
    change = part.apply(x)
    return change - own(x) if isinstance(part, DifferenceWeights) and part.replaces else change


def _delta(part: AdapterWeights, weight: Tensor) -> Tensor:
    return part.delta(weight) if isinstance(part, GLoRAWeights | RotationWeights) else part.delta()
