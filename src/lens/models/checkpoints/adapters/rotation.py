"""Adapters that rotate: OFT (arXiv:2306.07280) and BOFT (arXiv:2311.06243), and their rotations in blocks.

Knows nothing of files and modules.
Letters: O outputs, I inputs, D the side that is rotated, M stages, K blocks of N x N.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class RotationWeights(NamedTuple):
    """The weights of an OFT or BOFT for one layer, whose weight W becomes rescale * R @ W or rescale * W @ R.

    R is a product of stages. Each has blocks on the diagonal and its own order of the axes.
    """

    blocks: Tensor
    """(M, K, N, N), float32, in the order in which the stages act on a vector."""
    other_size: int
    """The size of the side that is not rotated; 0 if the layer is not known."""
    on_inputs: bool = False
    order: Tensor | None = None
    """(M, D) integers, the axes that blocks of a stage act on; None is one stage in the given order."""
    rescale: Tensor | None = None
    """(O, 1)"""
    magnitude: Tensor | None = None
    """As in LoraWeights."""

    @property
    def shape(self) -> tuple[int, ...]:
        size = self.blocks.shape[1] * self.blocks.shape[2]
        return (self.other_size, size) if self.on_inputs else (size, self.other_size)

    def delta(self, weight: Tensor) -> Tensor:
        """Return the matrix that is added to the weight, without the magnitude, (O, I)."""
        weight = weight.float()
        if self.on_inputs:  # rows of W @ R are R^T times rows of W
            turned = self._rotate(weight, transposed=True)
        else:
            turned = self._rotate(weight.mT, transposed=False).mT
        return (turned if self.rescale is None else turned * self.rescale.float()) - weight

    def change(self, x: Tensor, own: Callable[[Tensor], Tensor]) -> Tensor:
        """Return delta @ x, where own(x) is weight @ x. Shapes: x (..., I) -> (..., O)."""
        plain = own(x)
        if self.on_inputs:  # the difference is rotated, as that of two outputs would be rounded more
            change = own(self._rotate(x.float(), transposed=False).sub(x.float()).to(x.dtype)).float()
        else:
            change = self._rotate(plain.float(), transposed=False) - plain.float()
        if self.rescale is not None:
            factor = self.rescale.float().mT  # (1, O)
            change = factor * change + (factor - 1) * plain.float()
        return change.to(plain.dtype)

    def _rotate(self, vectors: Tensor, transposed: bool) -> Tensor:
        """Return R, or its transposed, times each vector. Shapes: (..., D) -> (..., D)."""
        stages = range(len(self.blocks))
        for stage in reversed(stages) if transposed else stages:
            blocks = self.blocks[stage].float()  # (K, N, N)
            order = None if self.order is None else self.order[stage]
            ordered = vectors if order is None else vectors[..., order]
            pieces = ordered.unflatten(-1, blocks.shape[:2])[..., None, :]  # (..., K, 1, N)
            turned = (pieces @ (blocks if transposed else blocks.mT)).flatten(-3)  # (..., D)
            vectors = turned if order is None else turned[..., order.argsort()]
        return vectors


def cayley(skew: Tensor) -> Tensor:
    """Return the rotations (1 + Q) (1 - Q)^-1 of skew-symmetric matrices Q. Shapes: (..., N, N)."""
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(one - skew, one + skew, left=False)


def inverse_cayley(rotation: Tensor) -> Tensor:
    """Return the skew-symmetric matrices whose rotations these are. Shapes: (..., N, N)."""
    one = torch.eye(rotation.shape[-1], dtype=rotation.dtype, device=rotation.device)
    return torch.linalg.solve(rotation + one, rotation - one, left=False)


def cayley_neumann(skew: Tensor, num_terms: int) -> Tensor:
    """Return the Cayley transform by its series, which ends as in PEFT: the last power counts once.

    Shapes: (..., N, N).
    """
    total = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device).expand_as(skew)
    if num_terms < 2:
        return total
    last = 1 if num_terms == 2 else max(3, num_terms - 1)
    power = skew
    for exponent in range(1, last + 1):
        total = total + (power if exponent == last > 1 else 2 * power)
        power = power @ skew
    return total


def butterfly_order(size: int, half_block: int, num_stages: int) -> Tensor:
    """Return the axes that the blocks of each stage of a BOFT act on, which are ever further apart.

    Shapes: -> (M, D), integers.
    """
    orders = []
    for stage in range(num_stages):
        distance = half_block * 2**stage
        axes = torch.arange(size).unflatten(0, (-1, 2, distance))
        orders.append(axes.transpose(1, 2).flatten())
    return torch.stack(orders)


def peft_butterfly_order(size: int, block_size: int, num_stages: int) -> Tensor:
    """Return the axes that the blocks of each stage of PEFT's BOFT act on.

    A stage takes groups of block_size * 2^stage axes apart: the even half blocks come first, then the odd.
    Shapes: -> (M, D), integers.
    """
    half, orders = block_size // 2, []
    for stage in range(num_stages):
        if num_stages == 1:
            orders.append(torch.arange(size))
            continue
        halves = torch.arange(size).reshape(-1, 2 * 2**stage, half)  # (groups, half blocks, N/2)
        indices = torch.cat([halves[:, ::2], halves[:, 1::2]], dim=1).flatten()
        orders.append(indices.argsort())
    return torch.stack(orders)
