"""What every objective returns."""

from typing import NamedTuple

from torch import Tensor


class Objective(NamedTuple):
    """A loss to minimise and the named, detached terms that go to the log."""

    loss: Tensor
    terms: dict[str, Tensor]
    num_samples: int = 1
    """Pictures, or captions, that the loss is of."""
