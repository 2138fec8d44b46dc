"""Patch classification loss: predicts the object class and part of every patch from a hidden state.

Follows representation alignment (REPA, arXiv 2410.06940), with exact labels in place of the features of
another network. Not part of the recipe of Lens; it lets the nano model learn layout in hours on a CPU.
Letters: B batch, I image tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchClassificationHead(nn.Module):
    """Linear classifier of hidden states; used in training only."""

    def __init__(self, dim: int, num_classes: Sequence[int]):
        super().__init__()
        self.num_classes = list(num_classes)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.linear = nn.Linear(dim, sum(num_classes))

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of each kind of label.

        Shapes: (B, I, D) -> one (B, I, classes) per kind.
        """
        return self.linear(self.norm(hidden)).split(self.num_classes, dim=-1)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Set all weights to zero, which makes all classes equally likely."""
        self.linear.weight.zero_()
        self.linear.bias.zero_()


def patch_classification_loss(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Return the mean cross-entropy over all tokens, summed over the kinds of label.

    Shapes: logits one (B, I, classes) per kind, labels one int64 (B, I) per kind -> ().
    """
    losses = [
        F.cross_entropy(kind.float().flatten(0, 1), label.flatten())
        for kind, label in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses).sum()
