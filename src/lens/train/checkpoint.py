"""Checkpoints of a run: everything that a resumed run needs to go on bit for bit.

Every random draw derives from (seed, purpose, step, item), so no generator state has to be kept. Tensors are
PyTorch's distributed checkpoints, which any number of ranks reads; `run.json`, written last, says that a
checkpoint is complete. They are a run's own and for no one else: what is published is exported instead.
"""

import json
import os
import shutil
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from lens.errors import CheckpointError
from lens.train.settings.run import CheckpointSettings
from lens.train.step import Run

warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # as asked

FOLDER = "checkpoints"
MARKER = "run.json"


class Checkpoints:
    """The checkpoints of one run; as a context it waits for the one that is being written."""

    def __init__(self, out: Path, settings: CheckpointSettings):
        self._folder, self._settings = out / FOLDER, settings
        # Of its own, for what is written in the background must not meet the run's sums.
        self._group: Any = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._step = -1
        """Of the latest checkpoint."""
        self._writing: tuple[Future, Path, dict[str, Any], bool] | None = None

    def save(self, run: Run) -> None:
        """Write the run's state whole or not at all; every rank must ask."""
        self._finish()
        folder = self._folder / f"step_{run.step:08d}"
        if run.step == self._step:
            return
        self._step = run.step
        facts = {
            "step": run.step, "guard": run.guard.state_dict(), "num_averaged": run.ema.num_updates,
            "best": run.best,
        }  # fmt: skip
        if run.ranks.is_main:
            shutil.rmtree(folder, ignore_errors=True)
        where: dict[str, Any] = {"process_group": self._group, "no_dist": self._group is None}
        if self._settings.background:
            future: Any = async_save(_tensors(run), checkpoint_id=folder, **where)
            self._writing = future, folder, facts, run.ranks.is_main
        else:
            save(_tensors(run), checkpoint_id=folder, **where)
            self._complete(folder, facts, run.ranks.is_main)

    def resume(self, run: Run) -> bool:
        """Load the latest complete checkpoint into the run if there is one; return whether there was.

        Raises: CheckpointError when the checkpoint is of other weights than the run's.
        """
        self._finish()
        complete = self._complete_ones()
        if not complete:
            return False
        tensors = _tensors(run)
        try:
            load(tensors, checkpoint_id=complete[-1], no_dist=self._group is None)
        except (CheckpointException, RuntimeError, ValueError) as error:
            holds = f"{complete[-1]} holds other weights than the recipe asks for"
            raise CheckpointError(f"{holds}. Choose another `out` or delete it. {error}") from error
        facts = json.loads((complete[-1] / MARKER).read_text())
        run.trained.load_state_dict(tensors["weights"], strict=False)
        for name, tensor in run.kept.items():
            tensor.copy_(tensors["kept"][name])
        set_optimizer_state_dict(run.trained, run.optimizer.parts, tensors["optimizer"])
        run.ema.load_state_dict({"num_updates": facts["num_averaged"], "average": tensors["average"]})
        run.guard.load_state_dict(facts["guard"])
        run.step, run.best = facts["step"], facts["best"]
        self._step = run.step
        return True

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self._finish()

    def _complete_ones(self) -> list[Path]:
        return sorted(path.parent for path in self._folder.glob(f"step_*/{MARKER}"))

    def _finish(self) -> None:
        """Wait for the checkpoint that is being written, and say that it is complete."""
        if self._writing:
            future, folder, facts, is_main = self._writing
            self._writing = None
            future.result()
            self._complete(folder, facts, is_main)

    def _complete(self, folder: Path, facts: dict[str, Any], is_main: bool) -> None:
        if self._group is not None:
            dist.barrier(self._group)
        if not is_main:
            return
        partial = folder / f"{MARKER}.partial"
        partial.write_text(json.dumps(facts))
        os.replace(partial, folder / MARKER)
        for old in self._complete_ones()[: -self._settings.keep_last]:
            (old / MARKER).unlink()
            shutil.rmtree(old)


def _tensors(run: Run) -> dict[str, Any]:
    frozen = {name for name, parameter in run.trained.named_parameters() if not parameter.requires_grad}
    state = run.trained.state_dict()
    return {
        # What is not trained, the recipe makes again.
        "weights": {name: tensor for name, tensor in state.items() if name not in frozen},
        "optimizer": get_optimizer_state_dict(run.trained, run.optimizer.parts),
        "average": run.ema.average,
    } | ({"kept": dict(run.kept)} if run.kept else {})
