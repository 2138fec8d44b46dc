"""The discriminator of distillation: small heads on features of a frozen denoiser.

The heads read the image tokens of a few middle blocks, for noisy images of any size. Spec: section 10.
Letters: B batch, I image tokens, D width of the denoiser, Q queries of a head, E width of a head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lens.errors import SettingError


class DiscriminatorHeads(nn.Module):
    """One head per block. The logit of an image is the mean of their logits, positive for real images."""

    def __init__(self, dim: int, num_heads: int, head_dim: int = 64, num_queries: int = 4):
        super().__init__()
        self.pools = nn.ModuleList(AttentionPool(dim, head_dim, num_queries) for _ in range(num_heads))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Shapes: one (B, I, D) per head -> (B,)."""
        logits = [pool(tokens) for pool, tokens in zip(self.pools, features, strict=True)]
        return torch.stack(logits).mean(0)                                                      # (B,)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw initial weights, with which every logit is zero."""
        for pool in self.pools:
            pool.init_weights(generator)  # type: ignore[operator]


class AttentionPool(nn.Module):
    """Pools the image tokens by a few learned queries, and maps the pooled features to a logit."""

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
    """Captures the image tokens that some blocks of a denoiser return, while capturing is on."""

    def __init__(self, denoiser: Any, blocks: Sequence[int]):
        """Hook these blocks, counted from 0.

        Raises: SettingError for a block that does not exist.
        """
        count = len(denoiser.transformer_blocks)
        if not blocks or min(blocks) < 0 or max(blocks) >= count:
            raise SettingError("discriminator_blocks", list(blocks), f"numbers of blocks below {count}")
        self._captured: list[Tensor] | None = None
        for block in sorted(blocks):
            denoiser.transformer_blocks[block].register_forward_hook(self._save_output)

    @contextmanager
    def capture(self) -> Iterator[list[Tensor]]:
        """Yield a list that forward passes inside the `with` block extend by one (B, I, D) per block."""
        self._captured = features = []
        try:
            yield features
        finally:
            self._captured = None

    def _save_output(self, _module: nn.Module, _inputs: Any, streams: tuple[Tensor, Tensor]) -> None:
        if self._captured is not None:
            self._captured.append(streams[0])


def middle_blocks(num_blocks: int) -> tuple[int, ...]:
    """Return three blocks in the middle half of a denoiser; fewer for a very small one."""
    return tuple(sorted({num_blocks // 4, num_blocks // 2, 3 * num_blocks // 4}))
