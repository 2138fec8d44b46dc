"""Reading losses: facts about a prompt's scene, told by the tokens after the prompt and by its own tokens.

Not part of the recipe of Lens, whose language model understands prompts already. Without the second loss, the
first one stands still for thousands of captions, as no token means anything yet (docs/log.md).
Letters: B prompts, F facts, V values of all facts, T tokens of a prompt, D width of the language model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReadingHead(nn.Module):
    """One linear classifier for each fact, of the hidden state of one token; used in training only."""

    def __init__(self, dim: int, tokens: Sequence[int], num_classes: Sequence[int]):
        """`tokens` are the tokens of the facts, counted from the end of the prompt."""
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


class MentionHead(nn.Module):
    """Tells for each token which values of facts it mentions; used in training only."""

    def __init__(self, dim: int, num_values: int):
        super().__init__()
        self.norm = nn.RMSNorm(dim, elementwise_affine=False)
        self.linear = nn.Linear(dim, num_values)
        nn.init.constant_(self.linear.bias, -5.0)  # most tokens mention none

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits of each token. Shapes: (B, T, D) -> (B, T, V)."""
        return self.linear(self.norm(hidden))


def mention_loss(logits: Tensor, mask: Tensor, mentioned: Tensor) -> Tensor:
    """Return the binary cross-entropy that some token mentions a value, summed over the values.

    Which token it is remains open: the logits of a prompt are the logsumexp of those of its tokens. Every
    prompt needs a token.

    Shapes: logits (B, T, V), bool mask (B, T), 0 or 1 (B, V) -> ().
    """
    pooled = logits.float().masked_fill(~mask[..., None], float("-inf")).logsumexp(1)              # (B, V)
    loss = F.binary_cross_entropy_with_logits(pooled, mentioned.float(), reduction="none")
    return loss.sum(1).mean()
