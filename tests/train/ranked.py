"""One process of a run on several, with few pictures a shard: what test_ranks.py starts.

`kill_at` is the step at whose beginning the main rank kills itself, as a machine that loses power would.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from float32 import train_in_float32

from lens.train.data import nano_cache
from lens.train.run import train
from lens.train.settings import stages
from lens.train.stages import nano_pretrain


def train_small(recipe: Path, overrides: Sequence[str] = (), kill_at: int = -1) -> None:
    objective = nano_pretrain.NanoPretrainStage.objective

    def killing(stage: nano_pretrain.NanoPretrainStage, step: int, index: int):
        if (step, index) == (kill_at, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return objective(stage, step, index)

    nano_pretrain.NanoPretrainStage.objective = killing  # type: ignore[method-assign]
    train_in_float32()
    for module in (nano_cache, nano_pretrain, stages):
        module.NANO_EXAMPLES_PER_SHARD = 8  # type: ignore[misc]
    train(recipe, list(overrides))


if __name__ == "__main__":
    train_small(Path(sys.argv[1]), sys.argv[2:])
