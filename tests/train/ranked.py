"""One process of a run on several, with few pictures a shard: what test_ranks.py starts by `torchrun`.

With LENS_KILL_AT the main rank kills itself, as a machine that loses power would, when it begins that step.
"""

import os
import signal
import sys
from pathlib import Path

from lens.train import example_cache
from lens.train.run import train
from lens.train.stages import pretrain

example_cache.SHARD = pretrain.SHARD = 8
objective = pretrain.PretrainStage.objective
KILL_AT = int(os.environ.get("LENS_KILL_AT", "-1"))


def killing(stage: pretrain.PretrainStage, step: int, index: int):
    if (step, index) == (KILL_AT, 0):
        os.kill(os.getpid(), signal.SIGKILL)
    return objective(stage, step, index)


pretrain.PretrainStage.objective = killing  # type: ignore[method-assign]

if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2:])
