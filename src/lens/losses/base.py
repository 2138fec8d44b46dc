"""What every objective returns."""

from typing import NamedTuple

from torch import Tensor


class StepStats(NamedTuple):
    """What was done for a loss, for the log: none of it changes anything."""

    num_samples: int = 0
    """Pictures, or captions."""
    num_tokens: int = 0
    """Of pictures and texts, padding left out."""
    flops: float = 0.0
    """Useful operations, forward and backward."""
    data_s: float = 0.0
    """Seconds in which the samples were made or read."""

    def plus(self, other: "StepStats") -> "StepStats":
        samples, tokens = self.num_samples + other.num_samples, self.num_tokens + other.num_tokens
        return StepStats(samples, tokens, self.flops + other.flops, self.data_s + other.data_s)


class LossOutput(NamedTuple):
    """A loss to minimise and the named, detached terms that go to the log."""

    loss: Tensor
    terms: dict[str, Tensor]
    stats: StepStats = StepStats()
