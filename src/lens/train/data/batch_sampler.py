"""A batch sampler with a token budget, independent of the number of ranks.

A pack is the input of one forward pass. Its samples depend on the seed and the number of the pack alone, so
that a resumed run sees the same packs, on any number of ranks. Spec: section 8 (batch 24 / 10 / 6 at base 512
/ 768 / 1024: one budget of 24,576 image tokens). Letters: N samples.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lens.errors import SettingError


class TokenBatchSampler:
    """Packs of an endless stream that has every sample once per epoch, in a new order each epoch."""

    def __init__(
        self, lengths: Sequence[int] | NDArray[np.int64], max_tokens: int, seed: int,
        groups: Sequence[int] | NDArray[np.int64] | None = None,
    ):  # fmt: skip
        """Take the token counts of all samples, (N,), and the token budget of a pack.

        With `groups`, (N,), all samples of a pack are from one group, such as a bucket.

        Raises: SettingError for no samples, or for a sample above the budget.
        """
        self._lengths = np.asarray(lengths, dtype=np.int64)
        if not len(self._lengths):
            raise SettingError("samples", 0, "at least one sample")
        longest = int(self._lengths.max())
        if longest > max_tokens:
            fix = f"Raise it, or leave out sample {int(self._lengths.argmax())}."
            raise SettingError(
                "tokens", max_tokens, f"at least {longest}, the length of the longest sample", fix
            )
        self._max_tokens, self._seed = max_tokens, seed
        names = np.zeros(len(self._lengths), np.int64) if groups is None else np.asarray(groups)
        self._group_members = [np.flatnonzero(names == name) for name in np.unique(names)]
        self._has_groups = groups is not None
        self._first_batch_of_epoch = [0]
        """Number of the first pack of each known epoch, and of the next epoch."""
        self._latest_epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def __getitem__(self, number: int) -> NDArray[np.int64]:
        """Return the samples of a pack; numbers continue through all epochs."""
        while number >= self._first_batch_of_epoch[-1]:
            self._first_batch_of_epoch.append(
                self._first_batch_of_epoch[-1] + len(self._epoch_batches(len(self._first_batch_of_epoch) - 1))
            )
        epoch = int(np.searchsorted(self._first_batch_of_epoch, number, side="right")) - 1
        return self._epoch_batches(epoch)[number - self._first_batch_of_epoch[epoch]]

    def batches_of_step(self, step: int, batches_per_step: int) -> list[NDArray[np.int64]]:
        """Return the packs of one update; rank r of R computes every R-th of them, starting at the r-th."""
        return [self[step * batches_per_step + index] for index in range(batches_per_step)]

    def _epoch_batches(self, epoch: int) -> list[NDArray[np.int64]]:
        if self._latest_epoch[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            batches = [
                batch
                for members in self._group_members
                for batch in self._split_by_budget(rng.permutation(members))
            ]
            if self._has_groups:
                batches = [batches[place] for place in rng.permutation(len(batches))]
            self._latest_epoch = epoch, batches
        return self._latest_epoch[1]

    def _split_by_budget(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Split a sequence of samples before each one that would exceed the budget."""
        ends = np.cumsum(self._lengths[order])
        cuts = [0]
        while cuts[-1] < len(order):
            used = ends[cuts[-1] - 1] if cuts[-1] else 0
            cuts.append(int(np.searchsorted(ends, used + self._max_tokens, side="right")))
        return [order[start:end] for start, end in pairwise(cuts)]
