"""Batches of real images of one size with their text features, for distillation.

They come from the cache of the nano world or from a latent cache. The samples of a batch depend on (seed,
step, index) alone. Letters: B batch, C latent channels, h and w latent cells, L captured layers, T text
tokens, E their width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lens.models.prompt_template import empty_prompt_embeds, pad_features
from lens.train.data import nano_cache
from lens.train.data.batch_sampler import TokenBatchSampler
from lens.train.data.latent_cache import LatentCache
from lens.train.data.nano_cache import NanoExampleSource, load_bucket


class Batch(NamedTuple):
    """Latents of images of one size, and the text features of their captions."""

    latents: Tensor
    """(B, C, h, w), float32."""
    features: list[Tensor]
    """L of (B, T, E)."""
    mask: Tensor
    """(B, T), True for real tokens."""
    share: float = 1.0
    """Weight of a mean over this batch in its update, with which all images count equally."""

    def to(self, device: torch.device) -> "Batch":
        features = [layer.to(device) for layer in self.features]
        return self._replace(latents=self.latents.to(device), features=features, mask=self.mask.to(device))

    def drop_text(self) -> "Batch":
        features, mask = empty_prompt_embeds(self.features)
        return self._replace(features=features, mask=mask)

    def repeat(self, count: int) -> "Batch":
        """Return the batch concatenated with itself, `count` times."""
        features = [torch.cat([layer] * count) for layer in self.features]
        mask = torch.cat([self.mask] * count)
        return self._replace(latents=torch.cat([self.latents] * count), features=features, mask=mask)

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.latents.shape[2], self.latents.shape[3]

    @property
    def token_counts(self) -> list[tuple[int, int]]:
        """Return the numbers of image and text tokens of each image."""
        h, w = self.latent_size
        return [(h * w, int(text)) for text in self.mask.sum(1).tolist()]


class BatchSource(Protocol):
    def micro_batch(self, step: int, index: int) -> Batch:
        """Return a micro-batch of an update."""
        ...


class NanoBatchSource:
    """Examples of the nano world; each batch has a random size."""

    def __init__(
        self, source: NanoExampleSource, cache: Path, sizes: Sequence[tuple[int, int]], layers: Sequence[int],
        num_examples: int, batch_size: int, seed: int,
    ):  # fmt: skip
        """Divide the distinct examples among the sizes."""
        num_shards = num_examples // (len(sizes) * nano_cache.NANO_EXAMPLES_PER_SHARD)
        self._buckets = [load_bucket(cache, source, size, layers, num_shards) for size in sizes]
        self._batch_size, self._seed = batch_size, seed

    def micro_batch(self, step: int, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, step, index])
        examples = self._buckets[rng.integers(len(self._buckets))].sample(rng, self._batch_size)
        return Batch(examples.latents, examples.features, examples.mask)


class CachedBatchSource:
    """Samples of a latent cache; a batch has as many of one size as fit a budget of image tokens."""

    def __init__(self, cache: LatentCache, keys: list[str], max_tokens: int, micro_batches: int, seed: int):
        self._cache, self._keys, self._micro_batches = cache, keys, micro_batches
        sizes = [cache.latent_size(key) for key in keys]
        names = {size: number for number, size in enumerate(dict.fromkeys(sizes))}
        lengths = [h * w for h, w in sizes]
        self._batch_sampler = TokenBatchSampler(
            lengths, max_tokens, seed, groups=[names[size] for size in sizes]
        )

    def micro_batch(self, step: int, index: int) -> Batch:
        batches = self._batch_sampler.batches_of_step(step, self._micro_batches)
        samples = [self._cache[self._keys[item]] for item in batches[index]]
        latents = torch.stack([sample.latents.float() for sample in samples])                   # (B, C, h, w)
        features, mask = pad_features([sample.features.unbind(0) for sample in samples])
        share = len(samples) * self._micro_batches / sum(map(len, batches))
        return Batch(latents, features, mask, share)
