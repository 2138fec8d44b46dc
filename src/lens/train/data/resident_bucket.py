"""Encoded examples of one image size in the memory of a device, and batches of them without work per sample.

Text features lie end to end, without padding. A batch has captions of one length class, with its padded
length. So there are few shapes, as CUDA graphs and compiled code need.
Letters: N examples, B batch, C latent channels, h and w latent cells, T tokens, L captured layers, E their
width, K kinds of patch label.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LENGTH_SHARES = (0.5, 0.85, 1.0)
"""Shares of the examples, by the length of their captions, at which a length class ends."""
TOKEN_MULTIPLE = 8
"""A sample of a batch has a multiple of so many tokens, image and text together, as the memory-efficient
attention wants its mask."""


class LengthClass(NamedTuple):
    """Examples whose captions have a similar length."""

    start: int
    """Place of the first example, by the length of the captions."""
    stop: int
    most_tokens: int
    """Tokens of an example that are seen at most: the last ones."""
    padded_tokens: int
    """T of a batch."""
    mean_tokens: float


class ResidentBatch(NamedTuple):
    """A batch of examples, all on one device."""

    latents: Tensor
    """(B, C, h, w), bfloat16."""
    features: tuple[Tensor, ...]
    """L of (B, T, E)."""
    mask: Tensor
    """(B, T), True for real tokens."""
    labels: Tensor
    """(B, K, h, w), uint8."""
    items: Tensor
    """(B,), places of the examples in the bucket."""


class ResidentBucket:
    """All examples of one image size, on a device."""

    def __init__(
        self, shards: Sequence[dict[str, Tensor]], layers: Sequence[int], device: torch.device,
        num_scaffold_tokens: int,
    ):  # fmt: skip
        self.device = device
        self._latents = torch.cat([shard["latents"].to(device) for shard in shards])            # (N, C, h, w)
        self._labels = torch.cat([shard["labels"].to(device) for shard in shards])              # (N, K, h, w)
        self._tokens = torch.cat(
            [shard["features"][list(layers)].transpose(0, 1).contiguous().to(device) for shard in shards]
        )  # (sum of T, L, E)
        lengths = torch.cat([shard["lengths"] for shard in shards])                             # (N,)
        order = lengths.argsort(stable=True)                                                    # (N,)
        self._lengths, self._order = lengths.to(device), order.to(device)
        self._starts = (lengths.cumsum(0) - lengths).to(device)                                 # (N,)
        self.length_classes = self._classes(lengths[order].tolist())
        self.scaffold = self._class(0, len(lengths), [num_scaffold_tokens])
        """All examples, of which the tokens of the scaffold alone are seen."""

    def __len__(self) -> int:
        return len(self._latents)

    @property
    def num_image_tokens(self) -> int:
        return self._latents.shape[2] * self._latents.shape[3]

    @property
    def num_bytes(self) -> int:
        """Return the size of the examples in memory."""
        return sum(part.numel() * part.element_size() for part in (self._latents, self._tokens, self._labels))

    def sample(self, generator: torch.Generator, batch_size: int, length_class: LengthClass) -> ResidentBatch:
        """Return random examples of a length class; the generator is on the device of the bucket."""
        places = torch.randint(
            length_class.start, length_class.stop, (batch_size,), generator=generator, device=self.device
        )
        return self.batch(self._order[places], length_class)

    def batch(self, items: Tensor, length_class: LengthClass) -> ResidentBatch:
        """Return the examples at some places of the bucket, as `length_class` shows them.

        Shapes: items (B,).
        """
        lengths, most_tokens = self._lengths[items], length_class.most_tokens                   # (B,)
        skipped = (lengths - most_tokens).clamp(min=0)                                          # (B,)
        positions = torch.arange(length_class.padded_tokens, device=self.device)                # (T,)
        rows = (self._starts[items] + skipped)[:, None] + positions                             # (B, T)
        # Padding reads the tokens of other captions, which the mask hides.
        tokens = self._tokens[rows.clamp(max=len(self._tokens) - 1)]                            # (B, T, L, E)
        mask = positions < (lengths - skipped)[:, None]                                         # (B, T)
        return ResidentBatch(self._latents[items], tokens.unbind(2), mask, self._labels[items], items)

    def _classes(self, lengths: list[int]) -> list[LengthClass]:
        stops = sorted({max(1, round(share * len(lengths))) for share in LENGTH_SHARES})
        pairs = zip([0, *stops], stops, strict=False)
        return [self._class(start, stop, lengths[start:stop]) for start, stop in pairs]

    def _class(self, start: int, stop: int, lengths: Sequence[int]) -> LengthClass:
        most_tokens = max(lengths)
        num_padding = -(self.num_image_tokens + most_tokens) % TOKEN_MULTIPLE
        return LengthClass(start, stop, most_tokens, most_tokens + num_padding, sum(lengths) / len(lengths))
