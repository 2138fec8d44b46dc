"""The layout loss: a hidden state of the denoiser must tell which thing, and which part of it, is where.

After representation alignment (REPA, arXiv 2410.06940), with exact labels in the place of another network's
features. Not part of Lens's recipe; it makes a small model on a small machine learn in hours what is where.
Letters: B batch, I image tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchClassificationHead(nn.Module):
    """Reads labels off a hidden state; used in training alone."""

    def __init__(self, dim: int, num_classes: Sequence[int]):
        super().__init__()
        self.num_classes = list(num_classes)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.linear = nn.Linear(dim, sum(num_classes))

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Shapes: (B, I, D) -> one (B, I, classes) for each kind of label."""
        return self.linear(self.norm(hidden)).split(self.num_classes, dim=-1)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start with all classes equally likely."""
        self.linear.weight.zero_()
        self.linear.bias.zero_()


def patch_classification_loss(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Return the mean cross-entropy of all tokens, summed over the kinds of label.

    Shapes: logits one (B, I, classes) a kind, labels one int64 (B, I) a kind -> ().
    """
    losses = [
        F.cross_entropy(kind.float().flatten(0, 1), label.flatten())
        for kind, label in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses).sum()
