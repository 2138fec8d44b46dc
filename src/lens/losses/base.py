"""Results of a loss: its value, terms for the log, and statistics of the step."""

from typing import NamedTuple

from torch import Tensor


class StepStats(NamedTuple):
    """Statistics of the work behind a loss, for the log."""

    num_samples: int = 0
    """Images, or captions."""
    num_tokens: int = 0
    """Image and text tokens, without padding."""
    flops: float = 0.0
    """Floating-point operations, forward and backward."""
    data_s: float = 0.0
    """Seconds spent on making or reading the samples."""

    def plus(self, other: "StepStats") -> "StepStats":
        samples, tokens = self.num_samples + other.num_samples, self.num_tokens + other.num_tokens
        return StepStats(samples, tokens, self.flops + other.flops, self.data_s + other.data_s)


class LossOutput(NamedTuple):
    """A loss to minimise, and named, detached terms for the log."""

    loss: Tensor
    terms: dict[str, Tensor]
    stats: StepStats = StepStats()
