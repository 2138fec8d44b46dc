"""Training in float32 from end to end, so that losses do not depend on the processor."""

from collections.abc import Callable
from typing import Any

import torch


def train_in_float32(replace: Callable[[Any, str, Any], object] = setattr) -> None:
    """Replace what computes or stores in bfloat16 even where a recipe says float32.

    Sums of bfloat16 products differ by up to 1.4e-3 between processors with and without AMX.
    """
    from lens.train import muon
    from lens.train.data import nano_cache

    replace(muon, "NEWTON_SCHULZ_DTYPE", torch.float32)
    replace(nano_cache, "VAE_PRECISION", "float32")
    replace(nano_cache, "STORED_DTYPE", torch.float32)
