"""Tells real pictures from a student's by what a frozen denoiser sees in them while they are noisy.

Small heads on the image tokens of a few middle blocks; any picture size. Spec: section 10.
Letters: B batch, I image tokens, D width of the denoiser, Q places that a head looks at, E width of a head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lens.errors import SettingError


class DiscriminatorHeads(nn.Module):
    """One head a block; a picture's logit is the mean of theirs, positive where it seems real."""

    def __init__(self, dim: int, num_heads: int, head_dim: int = 64, num_queries: int = 4):
        super().__init__()
        self.pools = nn.ModuleList(AttentionPool(dim, head_dim, num_queries) for _ in range(num_heads))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Shapes: one (B, I, D) a head -> (B,)."""
        logits = [pool(tokens) for pool, tokens in zip(self.pools, features, strict=True)]
        return torch.stack(logits).mean(0)                                                      # (B,)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw weights to train from; at first every logit is zero."""
        for pool in self.pools:
            pool.init_weights(generator)  # type: ignore[operator]


class AttentionPool(nn.Module):
    """Looks at a few places of a picture, wherever they are, and judges what is seen there together."""

    def __init__(self, dim: int, head_dim: int, num_queries: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.look = nn.Linear(dim, num_queries)
        self.see = nn.Linear(dim, head_dim)
        self.judge = nn.Linear(num_queries * head_dim, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, I, D) -> (B,)."""
        tokens = self.norm(tokens.float())
        weights = self.look(tokens).softmax(dim=1)                                              # (B, I, Q)
        seen = F.silu(self.see(tokens))                                                         # (B, I, E)
        return self.judge((weights.mT @ seen).flatten(1)).squeeze(1)                            # (B,)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        for layer in (self.look, self.see):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.judge.weight)
        nn.init.zeros_(self.judge.bias)


class FeatureHook:
    """What some blocks of a denoiser put out for the image tokens, kept only while asked to."""

    def __init__(self, denoiser: Any, blocks: Sequence[int]):
        """Watch these blocks, counted from 0.

        Raises: SettingError for a block that is not there.
        """
        count = len(denoiser.transformer_blocks)
        if not blocks or min(blocks) < 0 or max(blocks) >= count:
            raise SettingError("discriminator_blocks", list(blocks), f"numbers of blocks below {count}")
        self._captured: list[Tensor] | None = None
        for block in sorted(blocks):
            denoiser.transformer_blocks[block].register_forward_hook(self._save_output)

    @contextmanager
    def capture(self) -> Iterator[list[Tensor]]:
        """Give a list that fills, with one (B, I, D) a block, in forward passes inside the `with` block."""
        self._captured = features = []
        try:
            yield features
        finally:
            self._captured = None

    def _save_output(self, _module: nn.Module, _inputs: Any, streams: tuple[Tensor, Tensor]) -> None:
        if self._captured is not None:
            self._captured.append(streams[0])


def middle_blocks(num_blocks: int) -> tuple[int, ...]:
    """Return three blocks in the middle half of a denoiser; of a very small one those that there are."""
    return tuple(sorted({num_blocks // 4, num_blocks // 2, 3 * num_blocks // 4}))
