"""Reading loss: tells facts about a prompt's scene from the hidden states of the tokens after the prompt.

Not part of the recipe of Lens, whose language model understands prompts already.
Letters: B prompts, F facts, D width of the language model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReadingHead(nn.Module):
    """One linear classifier for each fact, of the hidden state of one token; used in training only."""

    def __init__(self, dim: int, tokens: Sequence[int], num_classes: Sequence[int]):
        """`tokens` are the tokens of the facts, counted from the end of the prompt; `num_classes` their values."""
        super().__init__()
        self.tokens = list(tokens)
        self.norm = nn.RMSNorm(dim, elementwise_affine=False)
        self.classifiers = nn.ModuleList(nn.Linear(dim, count) for count in num_classes)

    def forward(self, hidden: Tensor) -> list[Tensor]:
        """Return the logits of each fact. Shapes: (B, tokens after the prompt, D) -> F of (B, classes)."""
        hidden = self.norm(hidden)
        return [
            classifier(hidden[:, token])
            for classifier, token in zip(self.classifiers, self.tokens, strict=True)
        ]


def reading_loss(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return the cross-entropy summed over the facts and averaged over the prompts.

    Shapes: logits F of (B, classes); int64 labels (B, F) -> ().
    """
    losses = [F.cross_entropy(one.float(), labels[:, fact]) for fact, one in enumerate(logits)]
    return torch.stack(losses).sum()
