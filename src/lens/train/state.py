"""Checkpoints of a run: everything that a resumed run needs to go on bit for bit.

Every random draw derives from (seed, purpose, step, item), so no generator state has to be kept.
"""

import os
from pathlib import Path

import torch

from lens.errors import CheckpointError
from lens.train.step import Run

FILE = "checkpoint.pt"


def save(run: Run, folder: Path) -> None:
    """Write the run's state whole or not at all: a new file takes the place of the old one when complete."""
    state = {
        "step": run.step,
        "weights": run.trained.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "ema": run.ema.state_dict(),
        "guard": run.guard.state_dict(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    torch.save(state, partial)
    os.replace(partial, folder / FILE)


def resume(run: Run, folder: Path) -> bool:
    """Load the folder's checkpoint into the run if there is one; return whether there was.

    Raises: CheckpointError when the checkpoint is of other weights than the run's.
    """
    path = folder / FILE
    if not path.is_file():
        return False
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        run.trained.load_state_dict(state["weights"])
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds other weights than the recipe asks for. Choose another `out` or delete it. {error}"
        ) from error
    run.optimizer.load_state_dict(state["optimizer"])
    run.ema.load_state_dict(state["ema"])
    if "guard" in state:  # not in checkpoints of before there was one
        run.guard.load_state_dict(state["guard"])
    run.step = state["step"]
    return True
