"""Next-token loss of the language model."""

import torch.nn.functional as F
from torch import Tensor

from lens.losses.base import LossOutput


def next_token_loss(logits: Tensor, input_ids: Tensor, attention_mask: Tensor) -> LossOutput:
    """Return the mean cross-entropy of each real token given the tokens before it.

    Shapes: logits (B, T, vocabulary); input_ids and attention_mask (B, T), 1 = real token.
    """
    targets = input_ids.masked_fill(attention_mask == 0, -100)[:, 1:]                      # (B, T-1)
    loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=-100)
    return LossOutput(loss, {})
